# SPDX-License-Identifier: MIT
"""The cases of images in use: the holder and qemu-storage-daemon, each serving the same chain
on a Unix socket, with fio's nbd engine as the guest (4 KiB at random places, 16 in flight).

A case yields comparisons: what ours reached, what the other did, and the ratio asked. RUNS
alternating runs of each side, medians. All processes stay on two processors. SCALE divides
the sizes, and the seconds that a load lasts.
"""
import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time

from chains import GIB, KIB, MIB, RUNS, SCALE, create, fresh, scattered, sh, warm, write

SECONDS = max(1, 6 // SCALE)  # a load without an end of its own
LEAD = 2  # seconds of load before what is looked at
WINDOW = 1  # seconds of the idle guest looked at, at least
PROCESSORS = 2


# --- chains --------------------------------------------------------------------

def full_image(where):
    """One image that has all of its disk."""
    size = 2 * GIB // SCALE
    create(where + "/full.qcow2", size)
    write(where + "/full.qcow2", [(o, MIB) for o in range(0, size, MIB)])
    return "full.qcow2", None


def dealt_layers(where):
    """The disk's clusters dealt out to 64 layers; one.qcow2 has all of them."""
    rng = random.Random(5)
    size, unit, count = 2 * GIB // SCALE, 64 * KIB, 64
    places = list(range(size // unit))
    rng.shuffle(places)
    for i in range(count):
        path = "%s/%02d.qcow2" % (where, i)
        create(path, size, "%02d.qcow2" % (i - 1) if i else None)
        write(path, [(p * unit, unit) for p in sorted(places[i::count])])
    top = "%02d.qcow2" % (count - 1)
    sh("qemu-img", "convert", "-O", "qcow2", "%s/%s" % (where, top), where + "/one.qcow2")
    return top, None


def merge_chain(where):
    """4 GiB: A 1 GiB, B and C 0.75 each beside each other, D a little; pieces of 256 KiB."""
    rng = random.Random(6)
    size = 4 * GIB // SCALE
    half, unit = size // 2, 256 * KIB
    for name, backing, begin, length, amount in (
            ("A", None, 0, size, size // 4), ("B", "A", 0, half, 3 * size // 16),
            ("C", "B", half, half, 3 * size // 16), ("D", "C", 0, size, size // 64)):
        path = "%s/%s.qcow2" % (where, name)
        create(path, size, backing and backing + ".qcow2")
        write(path, [(begin + o, n) for o, n in scattered(rng, length, amount, unit)])
    return "D.qcow2", "A.qcow2"


# --- servers -------------------------------------------------------------------

class Server:
    """A process that serves NBD at .uri, and ends with its `with`."""

    def __init__(self, scratch, command, *sockets):
        self.sockets = [os.path.join(scratch, s) for s in sockets]
        self.uri = "nbd+unix:///?socket=" + self.sockets[0]
        for path in self.sockets:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        self.process = subprocess.Popen([str(a) for a in command])

    def __enter__(self):
        try:
            for path in self.sockets:
                self.wait_for(path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_for(self, path):
        """Until somebody listens there; to connect and go away would make it complain."""
        end = time.monotonic() + 20
        while time.monotonic() < end and self.process.poll() is None:
            with open("/proc/net/unix") as f:
                for line in f:
                    fields = line.split()
                    if fields[-1] == path and fields[3] == "00010000":
                        return
            time.sleep(0.02)
        raise SystemExit("no answer from %s" % " ".join(self.process.args))

    def peak(self):
        """The most memory that it had, in bytes."""
        with open("/proc/%d/status" % self.process.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) * KIB

    def processor(self):
        """Seconds of processor time that it has used."""
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Holder(Server):
    def __init__(self, bench, image):
        super().__init__(bench.scratch, [
            "nbdkit", "-f", "-U", bench.scratch + "/ours.sock",
            bench.build + "/nbdkit-chain-plugin.so", image], "ours.sock")

    def merge(self, image, base):
        ran = subprocess.run(["chain-stream", "-q", "-b", base, image],
                             stderr=subprocess.PIPE)
        if ran.returncode:
            raise SystemExit("chain-stream: status %d: %s" % (ran.returncode,
                                                             ran.stderr.decode()))


class Null(Server):
    """nbdkit without anything behind it: the limit of the client and the socket."""

    def __init__(self, bench, size):
        super().__init__(bench.scratch, [
            "nbdkit", "-f", "-U", bench.scratch + "/null.sock", "null", "size=%d" % size],
            "null.sock")


class Daemon(Server):
    def __init__(self, bench, image):
        super().__init__(bench.scratch, [
            "qemu-storage-daemon",
            "--blockdev", "driver=qcow2,node-name=n,file.driver=file,file.filename=" + image,
            "--nbd-server", "addr.type=unix,addr.path=%s/peer.sock" % bench.scratch,
            "--export", "type=nbd,id=e,node-name=n,writable=on,name=",
            "--chardev", "socket,id=q,server=on,wait=off,path=%s/qmp.sock" % bench.scratch,
            "--monitor", "chardev=q"], "peer.sock", "qmp.sock")

    def merge(self, image, base):
        """block-stream, until it is said to be done; the caller makes it durable."""
        with socket.socket(socket.AF_UNIX) as peer, peer.makefile("rw") as qmp:
            peer.connect(self.sockets[1])
            for command, arguments in (
                    ("qmp_capabilities", {}),
                    ("block-stream", {"job-id": "j", "device": "n", "base": base})):
                qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                qmp.flush()
            for line in qmp:
                said = json.loads(line)
                if "error" in said or "error" in said.get("data", {}):
                    raise SystemExit("block-stream: " + line)
                if said.get("event") == "BLOCK_JOB_COMPLETED":
                    return
        raise SystemExit("block-stream: the daemon went away")


# --- guests --------------------------------------------------------------------

def fio_command(uri, kind, *more):
    # the same places in every run
    return ["fio", "--name=guest", "--ioengine=nbd", "--uri=" + uri, "--rw=" + kind,
            "--bs=4k", "--iodepth=16", "--norandommap", "--randrepeat=1", "--thread",
            "--output-format=json"] + list(more)


def fio_rate(uri, kind, *more):
    """Of a load to its end: operations per second, how many, and how busy fio itself was, in
    parts of one processor: where that is all of it no server can be faster."""
    out = sh(*fio_command(uri, kind, *more)).decode()
    job = json.loads(out[out.index("\n{") if out[0] != "{" else 0:])["jobs"][0]
    if job["error"]:
        raise SystemExit("fio: error %d" % job["error"])
    return (job["read"]["iops"] + job["write"]["iops"],
            job["read"]["total_ios"] + job["write"]["total_ios"],
            (job["usr_cpu"] + job["sys_cpu"]) / 100)


def for_a_while():
    return "--time_based", "--runtime=%d" % SECONDS


class Guest:
    """A load that reads and writes until its `with` ends; what it saw is in .seen then."""

    def __init__(self, bench, uri):
        self.log = bench.scratch + "/guest"
        # an eighth of the disk, most of which the active image soon has: so merge and guest
        # meet, and much is left to merge
        self.command = fio_command(
            uri, "randrw", "--size=%d" % (GIB // 2 // SCALE), "--time_based", "--runtime=600",
            "--log_unix_epoch=1", "--write_lat_log=" + self.log)

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, cwd=os.path.dirname(self.log))
        time.sleep(LEAD)
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGINT)  # at which it writes its logs
        out = self.process.communicate()[0].decode()
        if kind:
            return
        self.seen = []
        try:
            with open(self.log + "_lat.1.log") as f:
                for line in f:
                    at, nanoseconds = line.split(",")[:2]
                    self.seen.append((int(at) / 1e3, int(nanoseconds) / 1e9))
        except FileNotFoundError:
            raise SystemExit("fio: " + out)
        for what in ("lat", "slat", "clat"):
            os.remove("%s_%s.1.log" % (self.log, what))

    def between(self, begin, end):
        """Operations per second that ended there, and p99 of all under way, in seconds."""
        ended = sum(begin <= at <= end for at, _ in self.seen)
        latencies = sorted(lat for at, lat in self.seen if at >= begin and at - lat <= end)
        if not latencies:
            raise SystemExit("fio: nothing was done while it merged")
        return ended / (end - begin), latencies[len(latencies) * 99 // 100]


# --- cases ---------------------------------------------------------------------

class Result:
    """A line: ours beside other, ratio at least what is asked (0: nothing)."""

    def __init__(self, ours, other, unit, asked, what, less=False, notes=""):
        self.ours, self.other = statistics.median(ours), statistics.median(other)
        self.unit, self.asked, self.what, self.notes = unit, asked, what, notes
        # less: the smaller figure is the better one
        self.ratio = self.other / self.ours if less else self.ours / self.other


class LiveCase:
    def __init__(self, name, place, make, measure):
        self.name, self.place, self.make, self.measure = name, place, make, measure
        self.peak = 0  # the most memory that a holder had

    def run(self, bench, where, top, base):
        """Measure and print; whether all that is asked was reached."""
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(allowed)[:PROCESSORS])
        warm(where)
        good, name = True, self.name
        try:
            results = self.measure(self, bench, where, top, base)
        finally:
            os.sched_setaffinity(0, allowed)
        for r in results:
            reached = r.ratio >= r.asked
            print("%-15s %9s %9s %-7s %6.2f %5s %6.1f  %-5s %s" % (
                name, figure(r.ours), figure(r.other), r.unit, r.ratio, r.asked or "-",
                self.peak / MIB, "ok" if reached else "BELOW", r.what + r.notes), flush=True)
            good &= reached
            name = ""
        return good

    @staticmethod
    def heading():
        print("%-15s %9s %9s %-7s %6s %5s %6s  %-5s %s" % (
            "case", "ours", "other", "unit", "ratio", "asked", "MiB", "", "other is"),
            flush=True)

    def rate(self, server, kind, *more):
        """Operations per second, seconds of processor time that one takes the server, and how
        busy the client was."""
        with server:
            before = server.processor()
            rate, count, busy = fio_rate(server.uri, kind, *more)
            if isinstance(server, Holder):
                self.peak = max(self.peak, server.peak())
            return rate, (server.processor() - before) / count, busy


def rates(ours, other, asked, what):
    """The comparison of what rate() said. The processor time is what a busy machine leaves."""
    (mine, costs, busy), (theirs, cost, _) = zip(*ours), zip(*other)
    return Result(mine, theirs, "ops/s", asked, what, notes="; %.1f and %.1f us of processor, "
                  "fio itself %.0f %% busy" % (
                      1e6 * statistics.median(costs), 1e6 * statistics.median(cost),
                      100 * statistics.median(busy)))


def limit(null, peer):
    return rates(null, peer, 0, "storage daemon, beside nbdkit's null plugin: the limit")


def hold_load(kind, asked):
    def measure(case, bench, where, top, base):
        ours, peer, null = [], [], []
        path = os.path.join(where, top)
        for _ in range(RUNS):
            peer.append(case.rate(Daemon(bench, path), kind, *for_a_while()))
            ours.append(case.rate(Holder(bench, path), kind, *for_a_while()))
            null.append(case.rate(Null(bench, 2 * GIB // SCALE), kind, *for_a_while()))
        return [rates(ours, peer, asked, "storage daemon"), limit(null, peer)]
    return measure


def two_copying_threads(source, target, count):
    """Clusters per second that two threads copy from anywhere in source to the end of target:
    what a first write costs where nothing else is done."""
    come, go = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT)
    unit, rng = 64 * KIB, random.Random(8)
    places = [rng.randrange(os.fstat(come).st_size // unit) * unit for _ in range(count)]

    def half(first):
        buf = bytearray(unit)
        for i in range(first, count, 2):
            os.preadv(come, [buf], places[i])
            os.pwritev(go, [buf], i * unit)

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(half, (0, 1)))
    took = time.monotonic() - begin
    os.close(come)
    os.close(go)
    os.remove(target)
    return count / took


def hold_first_write(case, bench, where, top, base):
    """So few writes that 9 of 10 are the first to their cluster."""
    size = 2 * GIB // SCALE
    path = where + "/overlay.qcow2"
    count = size // (64 * KIB) // 5
    writes = "--number_ios=%d" % count

    def rate(kind):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
        create(path, size, top)
        return case.rate(kind(bench, path), "randwrite", writes)

    ours, peer, null, bare = [], [], [], []
    for _ in range(2 * RUNS):  # they are short
        peer.append(rate(Daemon))
        ours.append(rate(Holder))
        null.append(case.rate(Null(bench, size), "randwrite", writes))
        bare.append(two_copying_threads(where + "/" + top, where + "/bare-out", count))
    os.remove(path)
    # what the copy costs, and the client and the socket: the processors can do so many
    most = [PROCESSORS / (PROCESSORS / b + cost + busy / r)
            for b, (r, cost, busy) in zip(bare, null)]
    return [rates(ours, peer, 2, "storage daemon"), limit(null, peer),
            Result(most, [p[0] for p in peer], "ops/s", 0, "storage daemon, beside what is "
                   "left of the processors by the client, the null plugin and the copying: "
                   "the limit", notes="; two threads that only copy: %.0f" %
                   statistics.median(bare))]


def hold_read_64(case, bench, where, top, base):
    ours, one, peer = [], [], []
    path = os.path.join(where, top)
    for _ in range(RUNS):
        peer.append(case.rate(Daemon(bench, path), "randread", *for_a_while()))
        ours.append(case.rate(Holder(bench, path), "randread", *for_a_while()))
        one.append(case.rate(Holder(bench, where + "/one.qcow2"), "randread",
                             *for_a_while()))
    return [rates(ours, peer, 4, "storage daemon"),
            rates(ours, one, 0.9, "ours with one layer")]


def durable(path):
    fd = os.open(path, os.O_RDWR)
    os.fdatasync(fd)
    os.close(fd)


def live(asked):
    def measure(case, bench, where, top, base):
        below = os.path.join(where, base)

        def seconds(kind):
            path = fresh(where, top)
            with kind(bench, path) as server:
                begin = time.monotonic()
                server.merge(path, below)
                durable(path)
                took = time.monotonic() - begin
                if kind is Holder:
                    case.peak = max(case.peak, server.peak())
            os.remove(path)
            return took

        ours, peer = [], []
        for _ in range(RUNS):
            peer.append(seconds(Daemon))
            ours.append(seconds(Holder))
        return [Result(ours, peer, "seconds", asked, "block-stream", less=True)]
    return measure


def live_load(asked):
    def measure(case, bench, where, top, base):
        below = os.path.join(where, base)

        def loaded(kind, idle):
            """Rate and p99 while it merges (idle: for so many seconds), and how long."""
            path = fresh(where, top)
            with kind(bench, path) as server:
                with Guest(bench, server.uri) as guest:
                    begin = time.time()
                    if idle:
                        time.sleep(idle)
                    else:
                        server.merge(path, below)
                    end = time.time()
                    time.sleep(0.3)  # what is under way ends
                if kind is Holder:
                    case.peak = max(case.peak, server.peak())
            os.remove(path)
            return guest.between(begin, end) + (end - begin,)

        busy, idle, peer = [], [], []
        for _ in range(RUNS):
            peer.append(loaded(Daemon, 0))
            busy.append(loaded(Holder, 0))
            idle.append(loaded(Holder, max(WINDOW, busy[-1][2])))
        rates, latencies, took = zip(*busy)
        return [Result(rates, [i[0] for i in idle], "ops/s", asked, "ours idle",
                       notes="; merged in %.2f s" % statistics.median(took)),
                Result([1e3 * t for t in latencies], [1e3 * p[1] for p in peer], "ms p99", 2,
                       "daemon in block-stream", less=True,
                       notes=" of %.2f s, with %s ops/s; ours idle: %.2f ms" % (
                           statistics.median(p[2] for p in peer),
                           figure(statistics.median(p[0] for p in peer)),
                           1e3 * statistics.median(i[1] for i in idle)))]
    return measure


def figure(x):
    return "%.0f" % x if x >= 1000 else "%.3f" % x


def live_cases():
    return [
        LiveCase("hold-read", "tmpfs", full_image, hold_load("randread", 3)),
        LiveCase("hold-overwrite", "tmpfs", full_image,
                 hold_load("randwrite", 2)),
        LiveCase("hold-first-write", "tmpfs", full_image, hold_first_write),
        LiveCase("hold-read-64", "tmpfs", dealt_layers, hold_read_64),
        LiveCase("live-ext4", "disk", merge_chain, live(1.3)),
        LiveCase("live-load-ext4", "disk", merge_chain, live_load(0.6)),
        LiveCase("live-xfs", "xfs", merge_chain, live(50)),
        LiveCase("live-load-xfs", "xfs", merge_chain, live_load(0.9)),
    ]
