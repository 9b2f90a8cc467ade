# SPDX-License-Identifier: MIT
"""The chains that the benchmark works on, and copies of them. SCALE divides their sizes."""
import os
import random
import subprocess
import sys

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
RUNS = int(os.environ.get("RUNS", "3"))
SCALE = int(os.environ.get("SCALE", "1"))


# argument: bytes. Says a line when it has them, and ends when its input does.
POOL = """
import mmap, sys

size, unit, page = int(sys.argv[1]), mmap.PAGESIZE << 8, mmap.PAGESIZE
m = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, size, page):
    m[at] = 1
for at in range(0, size, unit):
    m.madvise(mmap.MADV_DONTNEED, at + page, unit - page)
print("ready", flush=True)
sys.stdin.read()
"""


def own_memory():
    """Until the returned process is gone: the memory that is free stays this machine's.

    A virtual machine may give its free memory back to its host, in blocks of 2 MiB. Then a
    page costs ten times as much when it is used again (measured: 2 s a GiB instead of 0.2),
    and giving back takes a processor for tenths of a second, two seconds after somebody freed
    much: the run after that of the peer would pay. So all is used once, and one page in 256
    is kept: no free block is larger than half of that.
    """
    with open("/proc/meminfo") as f:
        # not of the cache: nobody has to give way
        free = next(int(line.split()[1]) for line in f if line.startswith("MemFree")) * KIB
    size = min(14 * GIB // SCALE, free * 3 // 4) // MIB * MIB
    pool = subprocess.Popen([sys.executable, "-c", POOL, str(size)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    pool.stdout.readline()
    return pool


def sh(*args, **kw):
    return subprocess.run([str(a) for a in args], check=True, stdout=subprocess.PIPE,
                          **kw).stdout


def create(path, size, backing=None, options=None):
    args = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if options:
        args += ["-o", options]
    if backing:
        args += ["-u", "-b", backing, "-F", "qcow2"]
    sh(*args, path, size)


def write(path, extents, flags=""):
    """Fill extents, pairs of offset and length of at most 1 MiB, with bytes that are not zero.

    Every image has bytes of its own: a rebase compares, and would leave out what its base
    happens to have, too.
    """
    seed = path + ".seed"
    with open(seed, "wb") as f:
        f.write(os.urandom(MIB))
    commands = "".join("write %s -q -s %s %d %d\n" % (flags, seed, o, n) for o, n in extents)
    sh("qemu-io", "-f", "qcow2", path, input=commands.encode())
    os.remove(seed)


def scattered(rng, size, amount, unit):
    """Extents of unit bytes, amount in all, at random places of a disk of size bytes."""
    places = rng.sample(range(size // unit), amount // unit)
    return [(p * unit, unit) for p in places]


def four_images(where):
    """4 GiB: A 1.6, B 0.7, C 0.7 GiB and a little in D, in pieces of 256 KiB."""
    rng = random.Random(1)
    size = 4 * GIB // SCALE
    for name, backing, share in (("A", None, 16), ("B", "A", 7), ("C", "B", 7), ("D", "C", 1)):
        path = "%s/%s.qcow2" % (where, name)
        create(path, size, backing and backing + ".qcow2")
        if name in "BC":
            # what B and C hold does not overlap, so a merge moves 1.4 GiB
            half = 0 if name == "B" else size // 2
            extents = [(half + o, n) for o, n in
                       scattered(rng, size // 2, share * size // 40 // MIB * MIB, 256 * KIB)]
        else:
            extents = scattered(rng, size, share * size // 40 // MIB * MIB, 256 * KIB)
        write(path, extents)
    return "D.qcow2", "A.qcow2"


def compressed(kind, cluster):
    def make(where):
        """1 GiB of compressed clusters in B; D with the given cluster size above it."""
        size = 1 * GIB // SCALE
        raw = where + "/raw"
        text = b"".join(b"%d %s\n" % (i, os.urandom(12).hex().encode()) for i in range(40000))
        with open(raw, "wb") as f:
            for i in range(size // MIB):
                f.write((text[i * 37 % 4096:] + text)[:MIB])
        create(where + "/A.qcow2", size)
        sh("qemu-img", "convert", "-c", "-W", "-m", "8", "-O", "qcow2",
           "-o", "compression_type=%s,cluster_size=64k" % kind, raw, where + "/B.qcow2")
        os.remove(raw)
        sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "A.qcow2",
           where + "/B.qcow2")
        create(where + "/D.qcow2", size, "B.qcow2",
               "compression_type=%s,cluster_size=%s" % (kind, cluster))
        return "D.qcow2", "A.qcow2"
    return make


def sparse(size):
    def make(where):
        """64 MiB of data over a huge disk."""
        rng = random.Random(2)
        create(where + "/A.qcow2", size)
        create(where + "/B.qcow2", size, "A.qcow2")
        create(where + "/D.qcow2", size, "B.qcow2")
        write(where + "/B.qcow2", scattered(rng, size, 64 * MIB // SCALE, 64 * KIB))
        return "D.qcow2", "A.qcow2"
    return make


def layers(count, each):
    def make(where):
        """So many images, each with a little data."""
        rng = random.Random(3)
        size = 4 * GIB // SCALE
        for i in range(count):
            path = "%s/%03d.qcow2" % (where, i)
            create(path, size, "%03d.qcow2" % (i - 1) if i else None)
            if each:
                write(path, scattered(rng, size, each, 64 * KIB))
        return "%03d.qcow2" % (count - 1), None
    return make


def warm(where):
    for name in os.listdir(where):
        with open(os.path.join(where, name), "rb", buffering=0) as f:
            while f.read(4 * MIB):
                pass


def fresh(where, top):
    """The active image as it was made, durable."""
    target = os.path.join(where, "work-" + top)
    if os.path.exists(target):
        os.remove(target)
    sh("cp", "--sparse=auto", os.path.join(where, top), target)
    sh("sync", "-f", target)
    return target
