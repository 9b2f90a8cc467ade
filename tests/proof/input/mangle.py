# SPDX-License-Identifier: MIT
"""A chain that somebody damaged, or made up, with the format in mind.

mangled(seed, number, chains) takes one of the valid chains and changes one to three things
in one or two of its images: header fields, extensions, words of every table, refcounts,
snapshots, bitmaps, names, compressed streams, lengths of files. The same seed, number and
chains give the same bytes.
"""
import random

from layout import COMPRESSED, EXT_BITMAPS, EXT_CRYPTO, OFFSET, Layout, get, put

COPIED = 1 << 63
EXT_KINDS = [0, 0xe2792aca, 0x6803f857, EXT_BITMAPS, EXT_CRYPTO, 0x44415441, 0x63686169,
             0x12345678, 0xffffffff]
FORMATS = [b"raw", b"qcow2", b"vmdk", b"", b"luks", b"qcow2\0", b"qco", b"\xff\xfe",
           b"raw\x1b[2J", b"a" * 15, b"a" * 16, b"a" * 200]


def names():
    """Backing strings"""
    inner = b'"file":{"driver":"file","filename":"%s"}'
    return [
        b"", b"D.qcow2", b"./D.qcow2", b"A.qcow2", b"B.qcow2", b"N.qcow2", b"missing", b".", b"/",
        b"..", b"fifo", b"folder", b"loop", b"/dev/zero", b"/dev/null", b"/dev/tty",
        b"/proc/self/mem", b"/proc/self/fd/0", b"/dev/fd/1", b"//D.qcow2", b"D.qcow2/", b" ",
        b"-", b"-n", b"a" * 300, b"a/" * 511 + b"a", b"a" * 1023, b"/" * 1023, b"../" * 341,
        b"x\0y", b"B.qcow2\0", b"\0B.qcow2", b"\x1b[2Jboo", b"new\nline", b"tab\tbell\a", b"\x7f",
        b"\xff\xfe", b"\xc3\xa9", b"\xc2\x9b31m", b"\xe2\x80\xae", b"\xed\xa0\x80", b"%s%n%s%n",
        b"a:b", b"a/b:c", b":", b"C:\\x", b"file:", b"file:B.qcow2", b"file:///B.qcow2",
        b"file:D.qcow2", b"file:" + b"a" * 300, b"nbd:", b"nbd:localhost:1", b"nbd:unix:/x",
        b"nbd://127.0.0.1:1/x", b"nbd+unix:///?socket=s", b"http://127.0.0.1/x", b"fat:rw:.",
        b"blkdebug::B.qcow2", b"host_device:/dev/zero", b"json:", b"json:{", b"json:{}",
        b"json:[]", b"json:null", b"json:1", b'json:""', b"json: {}", b"json:" + b"[" * 1018,
        b"json:" + b'{"a":' * 203, b'json:{"file":' * 70, b"json:{" + inner % b"B.qcow2" + b"}",
        b"json:{" + inner % b"D.qcow2" + b"}",
        b'json:{"driver":"raw",' + inner % b"B.qcow2" + b"}",
        b'json:{"driver":"qcow2",' + inner % b"D.qcow2" + b"}",
        b'json:{"driver":"qcow2","driver":"raw",' + inner % b"B.qcow2" + b"}",
        b'json:{"driver":1,' + inner % b"B.qcow2" + b"}",
        b'json:{"driver":"raw","offset":512,"size":1024,' + inner % b"B.qcow2" + b"}",
        b'json:{"driver":"qcow2","backing":null,' + inner % b"B.qcow2" + b"}",
        b'json:{"file.filename":"B.qcow2"}',
        b'json:{"file.filename":"B.qcow2","file.driver":"nbd"}',
        b'json:{"driver":"file","filename":"B.qcow2"}', b'json:{"driver":"null-co","size":1}',
        b'json:{"driver":"file","filename":"\\u0000"}',
        b'json:{"driver":"file","filename":"a\\u0000b"}',
        b'json:{"driver":"file","filename":"\\u001b[2J"}', b'json:{"file":"B.qcow2"}',
        b'json:{"driver":"file","filename":"\\ud800"}',
        b'json:{"driver":"file","filename":1e999}',
        b'json:{"driver":"file","filename":"json:{}"}', b'json:{"file.filename":"nbd://x"}',
        b'json:{"driver":"file","filename":"' + b"a" * 900 + b'"}', b'json:{"driver":"file"}x',
    ]


NAMES = names()


class Mangler:
    """Changes one image; what it did is said in `done`."""

    def __init__(self, rng, name, data):
        self.rng = rng
        self.layout = Layout(data)
        self.data = bytearray(data)
        self.name = name
        self.done = []

    def say(self, text, *args):
        self.done.append("%s: %s" % (self.name, text % args))

    # numbers

    def number(self, size, now):
        rng, cluster = self.rng, self.layout.cluster
        end = len(self.data)
        top = 1 << 8 * size
        some = rng.choice
        value = some([
            lambda: some([0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 32, 63, 64, 255, 256]),
            lambda: now + some([1, -1, 2, -2, 8, -8, 512, -512, cluster, -cluster, now]),
            lambda: now ^ 1 << rng.randrange(8 * size),
            lambda: some(self.layout.points()) + some([0, 0, 0, 1, 8, 512, -512, cluster]),
            lambda: end + some([-1, 0, 1, 512, cluster, -cluster, 1 << 30]),
            lambda: top - some([1, 2, 8, 512, cluster, 2 * cluster]),
            lambda: top // 2 - some([0, 1, -1, 512, cluster]),
            lambda: 1 << rng.randrange(8 * size),
            lambda: (1 << some([31, 32, 40, 55, 56, 62, 63])) - some([0, 1, 512, cluster]),
            lambda: some([1023, 1024, 65535, 65536, 1 << 20, 1 << 22, (1 << 22) + 1, 1 << 25]),
            lambda: rng.randrange(top),
        ])()
        return value % top

    def change(self, what, at, size):
        value = self.number(size, get(self.data, at, size))
        put(self.data, at, size, value)
        self.say("%s = %#x", what, value)

    # each of these changes one thing

    def header(self):
        self.change(*self.rng.choice(self.layout.fields))

    def extension(self):
        rng = self.rng
        at, kind, length = rng.choice(self.layout.extensions)
        how = rng.randrange(6)
        if how == 0:
            kind = rng.choice(EXT_KINDS)
            put(self.data, at, 4, kind)
            self.say("extension at %d: type %#x", at, kind)
        elif how == 1:
            value = rng.choice([length + 1, length + 8, length - 1, length - 8, 0, 7, 8, 24,
                                512 - at, self.layout.cluster - at,
                                self.layout.cluster - at - 8, self.number(4, length)])
            put(self.data, at + 4, 4, value)
            self.say("extension at %d: length %d", at, value % (1 << 32))
        elif how == 2 and length:
            n = rng.randrange(length)
            put(self.data, at + 8 + n, 1, rng.randrange(256))
            self.say("extension at %d: byte %d", at, n)
        elif how == 3:
            self.insert(at, rng.choice(EXT_KINDS[1:]),
                        bytes(rng.choice([0, 1, 8, 16, 24, 40, 48, 200])))
        elif how == 4:
            # no end: as many empty ones as the cluster holds
            at, _, _ = self.layout.extensions[-1]
            end = self.layout.cluster - rng.choice([0, 8, 4])
            for n in range(at, end - 7, 8):
                put(self.data, n, 8, 0x12345678 << 32)
            put(self.data, 8, 8, 0)
            self.say("extensions without an end")
        else:
            form = rng.choice(FORMATS)
            put(self.data, at + 4, 4, len(form))
            self.data[at + 8:at + 8 + len(form)] = form
            self.say("extension at %d: text %r", at, form)

    def insert(self, at, kind, data):
        """An extension more; what follows moves, and the name with it."""
        data += bytes(-len(data) % 8)
        piece = kind.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data
        cluster = self.layout.cluster
        self.data[at:cluster] = (piece + self.data[at:cluster])[:cluster - at]
        if self.layout.backing[0]:
            put(self.data, 8, 8, self.layout.backing[0] + len(piece))
        self.say("extension %#x of %d bytes inserted at %d", kind, len(data), at)

    def word_value(self, table, now):
        rng, cluster = self.rng, self.layout.cluster
        end = -(-len(self.data) // cluster) * cluster
        some = rng.choice
        return some([
            lambda: some(self.layout.points()) & OFFSET | some([0, COPIED]),
            lambda: now ^ 1 << rng.randrange(64),
            lambda: now + some([512, -512, cluster, -cluster, 8, 1]),
            lambda: end + some([0, cluster, -cluster, 1 << 40]) | some([0, COPIED]),
            lambda: some([0, (1 << 64) - 1, 1, COPIED, COPIED | 1, COMPRESSED, 2, 1 << 62]),
            lambda: some([OFFSET, OFFSET & -cluster, 1 << 55, (1 << 55) - cluster]) | COPIED,
            lambda: table.at | some([0, COPIED]),
            lambda: COMPRESSED | some(self.layout.points()) + rng.randrange(cluster) |
            rng.randrange(4096) << 62 - (cluster.bit_length() - 9) & COMPRESSED - 1,
            lambda: get(self.data, table.at + table.width * rng.randrange(table.count), 8),
            lambda: rng.randrange(1 << 64),
        ])() % (1 << 64)

    def word(self, tables=None):
        rng = self.rng
        tables = [t for t in tables or self.layout.tables if t.count]
        table = rng.choice(tables)
        used = [i for i in range(min(table.count, 8192))
                if any(self.data[table.at + table.width * i:table.at + table.width * i + 8])]
        how = rng.random()
        if how < 0.1:
            value = self.word_value(table, get(self.data, table.at, 8))
            count = min(table.count, rng.choice([2, 64, 8192]))
            for i in range(count):
                put(self.data, table.at + table.width * i, 8, value)
            self.say("%s: the first %d words %#x", table.name, count, value)
            return
        if used and how < 0.8:
            index = rng.choice(used)
        else:
            index = rng.choice([0, table.count - 1, rng.randrange(table.count)])
        at = table.at + table.width * index
        if table.width == 16 and rng.random() < 0.5:
            self.change("%s: bitmap %d" % (table.name, index), at + 8, 8)
            return
        value = self.word_value(table, get(self.data, at, 8))
        put(self.data, at, 8, value)
        self.say("%s: word %d = %#x", table.name, index, value)

    def refcounts(self):
        self.word([t for t in self.layout.tables if t.name.startswith("ref")])

    def record(self):
        if not self.layout.records:
            return self.word()
        name, fields = self.rng.choice(self.layout.records)
        field, at, size = self.rng.choice(fields)
        return self.change("%s: %s" % (name, field), at, size)

    def text(self):
        if not self.layout.texts:
            return self.record()
        name, at, size = self.rng.choice(self.layout.texts)
        text = self.rng.choice(NAMES)[:size]
        self.data[at:at + len(text)] = text
        return self.say("%s: %r", name, text)

    def backing(self):
        name = self.rng.choice(NAMES)
        at = self.layout.backing[0] or self.layout.extensions[-1][0] + 8
        name = name[:max(0, self.layout.cluster - at)]
        put(self.data, 8, 8, at)
        put(self.data, 16, 4, len(name))
        self.data[at:at + len(name)] = name
        self.say("backing string %r", name)
        if self.rng.random() < 0.3 and self.layout.extensions[0][1] == 0xe2792aca:
            form = self.rng.choice(FORMATS)[:8]
            put(self.data, 116, 4, len(form))
            self.data[120:120 + len(form)] = form
            self.say("backing format %r", form)

    def blob(self):
        rng = self.rng
        if not self.layout.blobs:
            return self.word()
        at, size = rng.choice(self.layout.blobs)
        how = rng.randrange(3)
        if how == 0:
            for _ in range(rng.choice([1, 3, 20])):
                put(self.data, at + rng.randrange(min(size, 64)), 1, rng.randrange(256))
            self.say("compressed stream at %d: bytes", at)
        elif how == 1:
            n = rng.randrange(min(size, 64))
            self.data[at + n:at + size] = bytes(rng.choice([0, 255]) for _ in range(size - n))
            self.say("compressed stream at %d: cut at %d", at, n)
        else:
            self.data[at:at + size] = rng.randbytes(size)
            self.say("compressed stream at %d: noise", at)
        return None

    def noise(self):
        """Bytes of metadata, and what has no structure here"""
        rng = self.rng
        places = [(0, 112)] * 3 + [(t.at, min(t.count * t.width, 64)) for t in self.layout.tables]
        places += [(at, size) for _, at, size in self.layout.raw] * 5
        at, size = rng.choice(places)
        for _ in range(rng.choice([1, 1, 4])):
            n = at + rng.randrange(size)
            put(self.data, n, 1, rng.choice([0, 255, rng.randrange(256)]))
            self.say("byte %d = %#x", n, self.data[n])

    def length(self):
        rng = self.rng
        end = rng.choice([
            rng.randrange(len(self.data) or 1), rng.choice(self.layout.points()),
            rng.choice(self.layout.points()) + rng.choice([1, 8, 511, 512]),
            rng.randrange(120), len(self.data) - rng.choice([1, 511, 512, self.layout.cluster]),
            len(self.data) + rng.choice([1, 511, 4096, 1 << 20])])
        end = max(0, end)
        self.data = self.data[:end] + bytes(max(0, end - len(self.data)))
        self.say("%d bytes long", end)


SORTS = [
    (6, Mangler.header), (3, Mangler.extension), (6, Mangler.word), (2, Mangler.refcounts),
    (4, Mangler.record), (1, Mangler.text), (3, Mangler.backing), (2, Mangler.blob),
    (1, Mangler.noise), (2, Mangler.length),
]


def damage(rng, files, name, done):
    """Change one file of a chain."""
    if not name.endswith(".qcow2"):
        # raw, or an external data file
        end = rng.choice([0, 1, 511, len(files[name]) // 2])
        files[name] = files[name][:end]
        done.append("%s: %d bytes long" % (name, end))
        return
    m = Mangler(rng, name, files[name])
    for sort in rng.choices([s for _, s in SORTS], [w for w, _ in SORTS],
                            k=rng.choice([1, 1, 1, 2, 3])):
        sort(m)
    files[name] = bytes(m.data)
    done += m.done


def mangled(seed, number, chains):
    """kind, {name: bytes}, [what was done]"""
    rng = random.Random("%s %d" % (seed, number))
    kind = rng.choice(sorted(chains))
    files = dict(chains[kind])
    below = sorted(set(files) - {"D.qcow2"})
    done = []
    first = "D.qcow2" if rng.random() < 0.6 else rng.choice(below)
    damage(rng, files, first, done)
    if rng.random() < 0.15:
        damage(rng, files, rng.choice([n for n in files if n != first]), done)
    return kind, files, done
