# SPDX-License-Identifier: MIT
"""Valid chains of many kinds, made by qemu-img: what mangle.py begins with.

Each kind is a folder with D.qcow2, the active image, its layers, and N.qcow2, an image that
D may be rebased to. They are small, and their bytes come in runs, so that an image that is
worth keeping is short as text (frozen.py). Sizes are a few clusters of each sort: data,
zeros, holes, compressed.
"""
import os
import struct
import subprocess

SECRET = ["--object", "secret,id=s,data=secret"]


def call(folder, *argv):
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)


class Maker:
    """One chain in the making; `options` go to every create."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.options = options
        self.pattern = 0
        os.makedirs(folder)

    def new(self, name, size, *options, below=None, form="qcow2"):
        argv = ["qemu-img", "create", "-q", "-f", "qcow2"]
        if below:
            argv += ["-b", below, "-F", form]
        text = ",".join(self.options + options)
        if text:
            argv += ["-o", text]
        call(self.folder, *argv, name, *([str(size)] if size else []))

    def put(self, name, *pieces):
        """(sort, offset, length) each; sort is w, c (compressed), z"""
        argv = ["qemu-io", "-f", "qcow2"]
        for sort, offset, length in pieces:
            self.pattern = self.pattern % 250 + 1
            flags = {"w": "-P %d" % self.pattern, "z": "-z",
                     "c": "-c -P %d" % self.pattern}[sort]
            argv += ["-c", "write %s %d %d" % (flags, offset, length)]
        call(self.folder, *argv, name)

    def chain(self, unit, sort="w", clusters=64):
        """A <- B <- D of so many clusters of unit bytes, and N, which has what A has"""
        size = unit * clusters
        self.new("A.qcow2", size)
        first = [("w", 0, 3 * unit), (sort, 4 * unit, unit), (sort, 5 * unit, unit),
                 ("w", 40 * unit, 2 * unit), (sort, (clusters - 1) * unit, unit)]
        self.put("A.qcow2", *first)
        self.new("B.qcow2", None, below="A.qcow2")
        self.put("B.qcow2", ("w", unit, unit), ("z", 2 * unit, unit), (sort, 8 * unit, unit),
                 ("w", 41 * unit, unit), ("w", 9 * unit, unit // 2))
        self.new("D.qcow2", None, below="B.qcow2")
        self.put("D.qcow2", (sort, 10 * unit, unit), ("w", 11 * unit, 2 * unit),
                 ("z", 40 * unit, unit), ("w", 5 * unit, unit // 2))
        self.new("N.qcow2", size)
        self.pattern = 0
        self.put("N.qcow2", *first)
        # what is not the same from one day to the next
        for name in os.listdir(self.folder):
            fix_dates(os.path.join(self.folder, name))


def fix_dates(path):
    """Snapshots are all of one moment."""
    with open(path, "r+b") as f:
        head = f.read(72)
        count, at = struct.unpack(">IQ", head[60:72])
        for _ in range(count):
            f.seek(at)
            entry = f.read(40)
            ids, names, extra = (*struct.unpack(">HH", entry[12:16]),
                                 struct.unpack(">I", entry[36:40])[0])
            f.seek(at + 16)
            f.write(struct.pack(">II", 1000000000, 0))
            at = (at + 40 + extra + ids + names + 7) & ~7


def snapshots(m, unit):
    m.chain(unit)
    for name in ("first", "second"):
        call(m.folder, "qemu-img", "snapshot", "-c", name, "D.qcow2")
        m.put("D.qcow2", ("w", 11 * unit, unit), ("w", 20 * unit, unit), ("z", 0, unit))
    fix_dates(os.path.join(m.folder, "D.qcow2"))


def bitmaps(m, unit):
    m.chain(unit)
    for name in ("D.qcow2", "B.qcow2"):
        call(m.folder, "qemu-img", "bitmap", "--add", "-g", "4096", name, "one")
        call(m.folder, "qemu-img", "bitmap", "--add", name, "two")
        m.put(name, ("w", 30 * unit, unit))


def data_file(m, unit):
    m.chain(unit)
    m.new("D.qcow2", None, "data_file=D.data", below="B.qcow2")
    m.put("D.qcow2", ("w", 11 * unit, 2 * unit), ("z", 40 * unit, unit))


def luks(m, unit):
    """QEMU measures the processor for it, which a busy machine's clock does not always allow."""
    m.chain(unit)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", *SECRET, "-o",
              "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "B.qcow2", "64k"]
    for _ in range(50):
        ran = subprocess.run(create, cwd=m.folder, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
        if b"CPU usage" not in ran.stderr:
            break
    if ran.returncode:
        raise SystemExit("cannot create an encrypted image: " + ran.stderr.decode())


def deep(m, unit):
    m.chain(unit)
    os.rename(os.path.join(m.folder, "D.qcow2"), os.path.join(m.folder, "C0.qcow2"))
    for i in range(4):
        m.new("C%d.qcow2" % (i + 1), None, below="C%d.qcow2" % i)
        m.put("C%d.qcow2" % (i + 1), ("w", (20 + i) * unit, 2 * unit))
    m.new("D.qcow2", None, below="C4.qcow2")
    m.put("D.qcow2", ("w", 30 * unit, unit))


def raw_base(m, unit):
    with open(os.path.join(m.folder, "A.raw"), "wb") as f:
        f.write(b"r" * (3 * unit + 77))
    m.new("B.qcow2", 40 * unit, below="A.raw", form="raw")
    m.put("B.qcow2", ("w", 2 * unit, unit), ("z", 0, unit))
    m.new("D.qcow2", 50 * unit, below="B.qcow2")
    m.put("D.qcow2", ("w", 9 * unit, unit))
    m.new("N.qcow2", 50 * unit)


def short(m, unit):
    m.chain(unit)
    m.new("B.qcow2", 20 * unit, below="A.qcow2")
    m.put("B.qcow2", ("w", unit, unit), ("z", 3 * unit, unit))
    m.new("D.qcow2", 70 * unit, below="B.qcow2")
    m.put("D.qcow2", ("w", 8 * unit, unit))


def json_name(m, unit):
    m.chain(unit)
    call(m.folder, "qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b",
         'json:{"driver":"qcow2","file":{"driver":"file","filename":"B.qcow2"}}', "D.qcow2")


def dirty(m, unit):
    m.chain(unit)
    for name in ("D.qcow2", "B.qcow2"):
        with open(os.path.join(m.folder, name), "r+b") as f:
            f.seek(79)
            f.write(b"\1")


def marked(m, unit):
    """Our own mark, as a writer leaves it that was killed, and leaks behind it."""
    m.chain(unit)
    path = os.path.join(m.folder, "D.qcow2")
    with open(path, "r+b") as f:
        end = os.fstat(f.fileno()).st_size
        f.seek(112)
        form = f.read(16)  # the backing format, in front
        names = f.read(8 + 384)[8:8 + 336]
        f.seek(112)
        f.write(form + struct.pack(">IIQ", 0x63686169, 8, end) +
                struct.pack(">II", 0x6803f857, 336) + names + bytes(8))
        f.truncate(end + 4 * unit)


# name: (what makes it, bytes of a cluster, options)
KINDS = {
    "v3": (Maker.chain, 65536, ()),
    "v2": (Maker.chain, 65536, ("compat=0.10",)),
    "c512": (Maker.chain, 512, ("cluster_size=512",)),
    "c512-v2": (Maker.chain, 512, ("cluster_size=512", "compat=0.10")),
    "c4k": (Maker.chain, 4096, ("cluster_size=4k",)),
    "c512-r64": (Maker.chain, 512, ("cluster_size=512", "refcount_bits=64")),
    "r1": (Maker.chain, 4096, ("cluster_size=4k", "refcount_bits=1")),
    "lazy": (Maker.chain, 4096, ("cluster_size=4k", "lazy_refcounts=on")),
    "dirty": (dirty, 4096, ("cluster_size=4k", "lazy_refcounts=on")),
    "extended": (Maker.chain, 16384, ("cluster_size=16k", "extended_l2=on")),
    "snapshots": (snapshots, 4096, ("cluster_size=4k",)),
    "snapshots-c512": (snapshots, 512, ("cluster_size=512",)),
    "snapshots-v2": (snapshots, 4096, ("cluster_size=4k", "compat=0.10")),
    "bitmaps": (bitmaps, 4096, ("cluster_size=4k",)),
    "zlib": (lambda m, u: m.chain(u, "c"), 4096, ("cluster_size=4k",)),
    "zlib-64k": (lambda m, u: m.chain(u, "c"), 65536, ()),
    "zstd": (lambda m, u: m.chain(u, "c"), 4096,
             ("cluster_size=4k", "compression_type=zstd")),
    "data-file": (data_file, 4096, ("cluster_size=4k",)),
    "luks": (luks, 4096, ("cluster_size=4k",)),
    "deep": (deep, 512, ("cluster_size=512",)),
    "raw-base": (raw_base, 4096, ("cluster_size=4k",)),
    "short": (short, 4096, ("cluster_size=4k",)),
    "json": (json_name, 4096, ("cluster_size=4k",)),
    "marked": (marked, 16384, ("cluster_size=16k",)),
}


def make(folder, kind):
    maker, unit, options = KINDS[kind]
    maker(Maker(os.path.join(folder, kind), *options), unit)


def load(folder, kind):
    """{name: bytes} of a chain that make made"""
    files = {}
    for name in sorted(os.listdir(os.path.join(folder, kind))):
        with open(os.path.join(folder, kind, name), "rb") as f:
            files[name] = f.read()
    return files
