# SPDX-License-Identifier: MIT
"""Chains as text, for tests/data/input: short, and the same for ever.

    # what it is
    kind v3
    done D.qcow2: l1_size = 0x0
    answers check=65 info=65 ...
    file D.qcow2 36864
    0 514649fb00000003...
    4096 61*4096

A line of bytes is an offset and pieces of hexadecimal digits, where XX*N is N times that
byte. What is not said is zero.
"""
import os
import re

RUN = 16  # as many equal bytes are written as one piece


def pieces(data):
    """(offset, text) of all that is not zero"""
    for m in re.finditer(rb"[^\0](?:\0{0,%d}[^\0])*" % RUN, data, re.S):
        words = []
        text = m.group()
        last = 0
        for r in re.finditer(rb"(.)\1{%d,}" % RUN, text, re.S):
            words.append(text[last:r.start()].hex())
            words.append("%02x*%d" % (r.group()[0], len(r.group())))
            last = r.end()
        words.append(text[last:].hex())
        yield m.start(), " ".join(w for w in words if w)


def freeze(path, files, kind, done, why):
    with open(path, "w", encoding="utf-8") as f:
        f.write("# %s\nkind %s\n" % (why.encode("unicode_escape").decode(), kind))
        for text in done:
            f.write("done %s\n" % text[:200])
        for name, data in sorted(files.items()):
            f.write("file %s %d\n" % (name, len(data)))
            for at, text in pieces(data):
                f.write("%d %s\n" % (at, text))


def thaw(path):
    """kind, {name: bytes}, [what was done], {command: status}"""
    kind, files, done, name, answers = "?", {}, [], None, {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "kind":
                kind = rest
            elif word == "done":
                done.append(rest)
            elif word == "answers":
                answers = {n: int(s) for n, s in (w.split("=") for w in rest.split())}
            elif word == "file":
                name, size = rest.split()
                files[name] = bytearray(int(size))
            elif word != "#":
                at = int(word)
                for piece in rest.split():
                    byte, star, count = piece.partition("*")
                    data = bytes.fromhex(byte) * (int(count) if star else 1)
                    files[name][at:at + len(data)] = data
                    at += len(data)
    return kind, {n: bytes(d) for n, d in files.items()}, done, answers


def record(path, answers):
    """Put the answers into the file."""
    with open(path, encoding="utf-8") as f:
        lines = [line for line in f if not line.startswith("answers ")]
    text = " ".join("%s=%d" % a for a in sorted(answers.items()))
    at = next(i for i, line in enumerate(lines) if line.startswith("file "))
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(lines[:at] + ["answers %s\n" % text] + lines[at:])


def choose(folder, signatures, make):
    """One image of each answer"""
    os.makedirs(folder, exist_ok=True)
    for (status, text), number in sorted(signatures.items()):
        kind, files, done = make(number)
        freeze(os.path.join(folder, "%s.txt" % number), files, kind, done,
               "%d: %s" % (status, text.decode(errors="replace")[:150]))
