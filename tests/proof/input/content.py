# SPDX-License-Identifier: MIT
"""The files after a command: what was not to be written, and whether the disk is what it was.

The oracle of content is qemu-img, and only where qemu-img check and our own check call every
image of the chain sound: of a damaged one nobody can say what it holds.
"""
import os
import subprocess

from commands import HOLDER

COMPARED = [0]
LARGEST = 64 << 20  # bytes of a disk that is compared
LEAKS = 3
PIECE = 1 << 20


def qemu(*argv):
    try:
        return subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, timeout=20, check=False).returncode
    except subprocess.TimeoutExpired:
        return -1


def flat(name, out):
    """The disk as a raw file at out; False where qemu-img cannot read it."""
    if os.path.exists(out):
        os.unlink(out)
    return qemu("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", name, out) == 0


def equal(a, b):
    """In pieces: our memory counts in that of what we start (wait4)."""
    with open(a, "rb") as f, open(b, "rb") as g:
        while True:
            piece = f.read(PIECE)
            if piece != g.read(PIECE):
                return False
            if not piece:
                return True


class Oracle:
    """Of one chain; asked lazily, since most commands never need it."""

    def __init__(self, build, sampled):
        self.build = build
        self.sampled = sampled
        self.known = None

    def ours_sound(self, name):
        return qemu(self.build.program("chain-info"), "-q", "--check", name) == 0

    def learn(self, chain):
        """Once, of the chain as it was: is it sound, what does D.qcow2 hold"""
        if self.known is not None:
            return
        self.known = {}
        size = int.from_bytes(chain.files["D.qcow2"][24:32], "big")
        if size > LARGEST:
            return
        for name in chain.files:
            if not name.endswith(".qcow2"):
                continue
            status = qemu("qemu-img", "check", "-f", "qcow2", name)
            if status not in (0, LEAKS) or not self.ours_sound(name):
                return
        self.known["leaks"] = self.leaks(chain)
        self.known["sound"] = flat("D.qcow2", "../before")

    @staticmethod
    def leaks(chain):
        """Also those that show only when the file has grown"""
        with open("longer", "wb") as f:
            f.write(chain.files["D.qcow2"])
            f.truncate(len(chain.files["D.qcow2"]) + (32 << 20))
        status = qemu("qemu-img", "check", "-f", "qcow2", "longer")
        os.unlink("longer")
        return status == LEAKS

    def after(self, chain, command, run):
        """What is wrong with the files, or None. The chain as it was is put back by the
        caller; to look at that, it is put aside here."""
        changed, new = chain.touched()
        made = [] if command.name != "snapshot" or run.status else ["E.qcow2"]
        if new != made:
            return "status %d, and these files are new: %s" % (run.status, new)
        may = ["D.qcow2", "D.data"] if command.writes else []
        bad = [n for n in changed if n not in may]
        if bad:
            return "status %d, and has written to %s%s" % (
                run.status, bad, "" if any(not chain.same(n) for n in bad) else " (the same)")
        if run.status and changed and command is not HOLDER:
            if run.status in (64, 66, 77) and not all(chain.same(n) for n in changed):
                return "status %d, and has changed %s" % (run.status, changed)
        if not changed or not self.sampled:
            return None
        return self.content(chain, command, run)

    def content(self, chain, command, run):
        aside = {n: "../aside-" + n for n in ("D.qcow2", "D.data") if n in chain.files}
        for name, path in aside.items():
            os.replace(name, path)
            chain.restore(name)
        self.learn(chain)
        for name, path in aside.items():
            os.replace(path, name)
        if not self.known.get("sound"):
            return None
        status = qemu("qemu-img", "check", "-f", "qcow2", "D.qcow2")
        if status != 0 and (status != LEAKS or not (self.known["leaks"] or run.status)):
            return "sound before; qemu-img check of it says %d now (status %d)" % (
                status, run.status)
        if not self.ours_sound("D.qcow2"):
            return "sound before; our own check says it is not now"
        if command.merges or (run.status and command is not HOLDER):
            COMPARED[0] += 1
            if not flat("D.qcow2", "../after") or not equal("../before", "../after"):
                return "the disk is another one (status %d)" % run.status
        return None
