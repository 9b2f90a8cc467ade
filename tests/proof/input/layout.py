# SPDX-License-Identifier: MIT
"""What lies where in a valid qcow2 image (docs/interop/qcow2.txt), for mangle.py."""
import struct

OFFSET = 0x00fffffffffffe00
COMPRESSED = 1 << 62
EXT_BITMAPS = 0x23852875
EXT_CRYPTO = 0x0537be77

# name, offset, bytes
HEADER = [
    ("magic", 0, 4), ("version", 4, 4), ("backing_offset", 8, 8), ("backing_length", 16, 4),
    ("cluster_bits", 20, 4), ("size", 24, 8), ("crypt", 32, 4), ("l1_size", 36, 4),
    ("l1_offset", 40, 8), ("reftable_offset", 48, 8), ("reftable_clusters", 56, 4),
    ("snapshots", 60, 4), ("snapshots_offset", 64, 8),
]
HEADER_3 = [
    ("incompatible", 72, 8), ("compatible", 80, 8), ("autoclear", 88, 8),
    ("refcount_order", 96, 4), ("header_length", 100, 4), ("compression", 104, 1),
    ("padding", 105, 7),
]
SNAPSHOT = [
    ("l1_offset", 0, 8), ("l1_size", 8, 4), ("id_length", 12, 2), ("name_length", 14, 2),
    ("seconds", 16, 4), ("nanoseconds", 20, 4), ("clock", 24, 8), ("vm_size", 32, 4),
    ("extra_length", 36, 4),
]
SNAPSHOT_EXTRA = [("vm_size_64", 40, 8), ("disk_size", 48, 8), ("icount", 56, 8)]
BITMAP = [
    ("table_offset", 0, 8), ("table_size", 8, 4), ("flags", 12, 4), ("type", 16, 1),
    ("granularity", 17, 1), ("name_length", 18, 2), ("extra_length", 20, 4),
]


def get(data, at, size):
    return int.from_bytes(data[at:at + size], "big")


def put(data, at, size, value):
    """Past the end the file grows."""
    if len(data) < at + size:
        data.extend(bytes(at + size - len(data)))
    data[at:at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "big")


class Table:
    """name, where it begins, how many words, bytes of a word"""

    def __init__(self, name, at, count, width=8):
        self.name, self.at, self.count, self.width = name, at, count, width


class Layout:
    def __init__(self, data):
        self.data = data
        self.version = get(data, 4, 4)
        self.cluster = 1 << get(data, 20, 4)
        self.fields = [(n, at, s) for n, at, s in
                       HEADER + (HEADER_3 if self.version == 3 else [])]
        self.extended = self.version == 3 and get(data, 72, 8) & 16
        self.tables = []
        self.records = []  # (name, [(field, at, bytes)])
        self.texts = []  # (name, at, bytes)
        self.blobs = []  # (at, bytes)
        self.raw = []  # (name, at, bytes): no structure that is known here
        self.extensions = []  # (at, type, length)
        self.backing = (get(data, 8, 8), get(data, 16, 4))
        self.walk_extensions()
        self.walk_l1("active", get(data, 40, 8), get(data, 36, 4))
        self.walk_refcounts()
        self.walk_snapshots()

    def walk_extensions(self):
        at = get(self.data, 100, 4) if self.version == 3 else 72
        while True:
            kind, length = struct.unpack(">II", self.data[at:at + 8])
            self.extensions.append((at, kind, length))
            if kind == 0:
                break
            if kind == EXT_BITMAPS:
                self.walk_bitmaps(at + 8)
            elif kind == EXT_CRYPTO:
                self.raw.append(("luks", get(self.data, at + 8, 8), 4096))
            at += 8 + (length + 7 & ~7)

    def walk_l1(self, name, at, count):
        self.tables.append(Table("L1 " + name, at, count))
        width = 16 if self.extended else 8
        for i in range(count):
            l2 = get(self.data, at + 8 * i, 8) & OFFSET
            if not l2 or any(t.at == l2 for t in self.tables):
                continue
            self.tables.append(Table("L2 %s %d" % (name, i), l2, self.cluster // width, width))
            for j in range(self.cluster // width):
                self.look(get(self.data, l2 + width * j, 8))

    def look(self, word):
        if word & COMPRESSED:
            bits = 62 - (self.cluster.bit_length() - 1 - 8)
            at = word & (1 << bits) - 1
            size = ((word & COMPRESSED - 1) >> bits) + 1
            self.blobs.append((at, size * 512 - at % 512))

    def walk_refcounts(self):
        at, clusters = get(self.data, 48, 8), get(self.data, 56, 4)
        self.tables.append(Table("reftable", at, clusters * self.cluster // 8))
        for i in range(clusters * self.cluster // 8):
            block = get(self.data, at + 8 * i, 8) & OFFSET
            if block:
                self.tables.append(Table("refblock %d" % i, block, self.cluster // 8))

    def walk_snapshots(self):
        at = get(self.data, 64, 8)
        for i in range(get(self.data, 60, 4)):
            extra = get(self.data, at + 36, 4)
            fields = SNAPSHOT + [f for f in SNAPSHOT_EXTRA if f[1] + f[2] <= 40 + extra]
            self.records.append(("snapshot %d" % i, [(n, at + o, s) for n, o, s in fields]))
            text = at + 40 + extra
            for j, what in ((12, "id"), (14, "name")):
                length = get(self.data, at + j, 2)
                self.texts.append(("snapshot %d's %s" % (i, what), text, length))
                text += length
            self.walk_l1("snapshot %d" % i, get(self.data, at, 8), get(self.data, at + 8, 4))
            at = text + 7 & ~7

    def walk_bitmaps(self, at):
        self.records.append(("bitmaps extension", [
            ("count", at, 4), ("reserved", at + 4, 4), ("size", at + 8, 8),
            ("offset", at + 16, 8)]))
        count, entry = get(self.data, at, 4), get(self.data, at + 16, 8)
        for i in range(count):
            self.records.append(("bitmap %d" % i, [(n, entry + o, s) for n, o, s in BITMAP]))
            self.tables.append(Table("bitmap table %d" % i, get(self.data, entry, 8),
                                     get(self.data, entry + 8, 4)))
            length, extra = get(self.data, entry + 18, 2), get(self.data, entry + 20, 4)
            self.texts.append(("bitmap %d's name" % i, entry + 24 + extra, length))
            entry += 24 + extra + length + 7 & ~7

    def points(self):
        """Offsets at which something begins, or the file ends"""
        out = [0, self.cluster, len(self.data), len(self.data) - len(self.data) % self.cluster]
        out += [t.at for t in self.tables]
        out += [at for at, _ in self.blobs]
        out += [fields[0][1] for _, fields in self.records]
        return sorted(set(out))
