# SPDX-License-Identifier: MIT
"""What is run on a mangled chain, and what must hold of each run.

Every command, whatever the image: no crash (signal, sanitizer), no hang, a bound on memory, a
documented status, one sentence on stderr if it failed, no control characters, JSON that
parses, the layers as they were. Of the active image: bit-identical unless the command is one
that writes; and if that fails, at least as good as before.
"""
import json
import os
import re
import resource
import signal
import threading
import time

MIB = 1 << 20
MEMORY = 128 * MIB
# no write goes further: a mangled offset must not fill the machine
FILE_LIMIT = 256 * MIB
DATA, NOINPUT, IOERR, NOPERM = 65, 66, 74, 77

COLUMNS = ("+OWN,VISIBLE,HOLDERS,SNAPSHOTS,BITMAPS,ENCRYPTION,COMPAT,COMPRESSION,REFBITS,"
           "DATAFILE,BACKING,BACKFMT,ERROR,OWNER,DISK,FLAGS")


class Command:
    """name, argv; writes: the active image may change; more: statuses that only this has"""

    def __init__(self, name, argv, writes=False, more=(), shape=None):
        self.name, self.argv, self.writes, self.more = name, argv.split(), writes, more
        self.argv = ["" if a == "''" else a for a in self.argv]
        self.shape = shape  # of stdout: None, "json", "jsonl"
        self.merges = writes and self.argv[0] in ("chain-stream", "chain-rebase") \
            and "-u" not in self.argv


READERS = [
    Command("info", "chain-info -q D.qcow2"),
    Command("info-columns", "chain-info -q -b -o " + COLUMNS + " D.qcow2"),
    Command("info-json", "chain-info -q -v --json D.qcow2 N.qcow2", shape="jsonl"),
    Command("info-layer", "chain-info -v -q B.qcow2"),
    Command("map", "chain-info -q --map D.qcow2"),
    Command("map-json", "chain-info -q --map --json D.qcow2", shape="json"),
    Command("check", "chain-info -q --check D.qcow2"),
    Command("check-all", "chain-info -q --check --json A.qcow2 B.qcow2 N.qcow2", shape="jsonl"),
    Command("dot", "chain-info -q --dot D.qcow2"),
    # 64: BASE is not in the chain; NEWBASE would make a circle of it, or its name does not fit
    Command("dry-run", "chain-stream -q -n D.qcow2"),
    Command("dry-run-base", "chain-stream -q -n --json -b A.qcow2 D.qcow2", more=(64,),
            shape="jsonl"),
    Command("dry-rebase", "chain-rebase -q -n -b N.qcow2 D.qcow2", more=(64,)),
    Command("dry-unsafe", "chain-rebase -q -n -u -F qcow2 -b N.qcow2 D.qcow2", more=(64,)),
]
WRITERS = [
    Command("snapshot", "chain-snapshot -q D.qcow2 E.qcow2"),
    Command("stream", "chain-stream -q D.qcow2", True),
    Command("stream-base", "chain-stream -q -j 1 -b A.qcow2 D.qcow2", True, (64,)),
    Command("stream-verify", "chain-stream -q --verify --json --depth=2 D.qcow2", True,
            shape="jsonl"),
    Command("stream-on", "chain-stream -q -j 2 --on-error=ignore D.qcow2", True),
    Command("rebase", "chain-rebase -q -F qcow2 -b N.qcow2 D.qcow2", True, (64,)),
    Command("rebase-probe", "chain-rebase -q --verify -b N.qcow2 D.qcow2", True, (64,)),
    Command("rebase-none", "chain-rebase -q -b '' D.qcow2", True),
    Command("rebase-raw", "chain-rebase -q -F raw -b N.qcow2 D.qcow2", True, (64,)),
    Command("unsafe", "chain-rebase -q -u -F qcow2 -b N.qcow2 D.qcow2", True, (64,)),
    Command("unsafe-none", "chain-rebase -q -u -b '' D.qcow2", True),
]
HOLDER = Command("holder", "nbdkit", True)
ALL = READERS + WRITERS + [HOLDER]

SPECIAL = ("fifo", "folder", "loop")


class Chain:
    """The files of one chain in the working folder, put back after each that writes."""

    def __init__(self, files):
        self.files = files
        self.stamps = {}
        clear(".")
        os.mkfifo("fifo")
        os.mkdir("folder")
        os.symlink("loop", "loop")
        for name in files:
            self.restore(name)

    def restore(self, name):
        with open(name, "wb") as f:
            f.write(self.files[name])
        os.utime(name, (1, 1))
        self.stamps[name] = self.stamp(name)

    @staticmethod
    def stamp(name):
        try:
            s = os.stat(name)
        except FileNotFoundError:
            return None
        return s.st_ino, s.st_size, s.st_mtime_ns, s.st_mode

    def touched(self):
        """Names that somebody wrote to, and files that are new"""
        changed = [n for n in self.files if self.stamp(n) != self.stamps[n]]
        new = [n for n in os.listdir(".") if n not in self.files and n not in SPECIAL]
        return changed, new

    def same(self, name):
        if os.path.getsize(name) != len(self.files[name]):
            return False
        with open(name, "rb") as f:
            return f.read() == self.files[name]

    def put_back(self):
        changed, new = self.touched()
        for name in new:
            os.unlink(name)
        for name in changed:
            if os.path.exists(name):
                os.unlink(name)
            self.restore(name)


def clear(folder):
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)


class Run:
    """What became of a process"""

    def __init__(self, argv, env, limit, socket=None):
        self.late = False
        begin = time.monotonic()
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)] if socket is None else \
            [(os.POSIX_SPAWN_DUP2, socket.fileno(), 0), (os.POSIX_SPAWN_DUP2, socket.fileno(), 1)]
        if socket is None:
            actions.append((os.POSIX_SPAWN_OPEN, 1, "../out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                            0o600))
        actions.append((os.POSIX_SPAWN_OPEN, 2, "../err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
                        0o600))
        self.pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
        self.timer = threading.Timer(limit, self.kill)
        self.timer.daemon = True
        self.timer.start()
        self.begin = begin

    def kill(self):
        self.late = True
        os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        # waitid keeps the pid ours until the timer is off
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.timer.cancel()
        _, status, usage = os.wait4(self.pid, 0)
        self.seconds = time.monotonic() - self.begin
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss * 1024
        self.status = os.waitstatus_to_exitcode(status)
        with open("../err", "rb") as f:
            self.err = f.read(100000)
        with open("../out", "rb") as f:
            self.out = f.read(OUT)
        return self


class Build:
    """Programs to run: folder, whether they have sanitizers, and what nbdkit needs then"""

    def __init__(self, folder, preload=""):
        self.folder = os.path.realpath(folder)
        self.sanitized = bool(preload)
        # a process that allocates without end should fail and not take the machine along
        self.limit = 10 if self.sanitized else 2
        self.env = dict(os.environ, CHAIN_RUNTIME_DIR=os.path.realpath("../run"),
                        LC_ALL="C.UTF-8",
                        UBSAN_OPTIONS="halt_on_error=1:exitcode=99:print_stacktrace=1")
        self.look_for_leaks(True)
        self.preload = preload
        self.plugin = os.path.join(self.folder, "nbdkit-chain-plugin.so")

    def look_for_leaks(self, yes):
        """To look for what was not freed takes two thirds of the time of a run"""
        self.env["ASAN_OPTIONS"] = "exitcode=99:allocator_may_return_null=1:detect_leaks=%d" % yes

    def program(self, name):
        return os.path.join(self.folder, "bin", name)

    def run(self, command):
        argv = [self.program(command.argv[0])] + command.argv[1:]
        # the others of this machine slow it down: that is no hang
        return Run(argv, self.env, 5 * self.limit).wait()

    def serve(self, guest):
        """nbdkit with the plugin, on a socket of ours, and guest(socket) at the other end"""
        from guest import pair
        ours, its = pair()
        env = dict(self.env, LD_PRELOAD=self.preload) if self.preload else self.env
        with open("../out", "wb"):
            pass
        r = Run(["/usr/bin/env", "nbdkit", "-s", self.plugin, "file=D.qcow2"], env,
                5 * self.limit, its)
        its.close()
        try:
            r.served = guest(ours)
        finally:
            ours.close()
        return r.wait()


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


# a terminal would act on these; those behind it are for programs, and as JSON wants them
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
CONTROL_JSON = re.compile(r"[\x00-\x09\x0b-\x1f]")
# of stdout, so much is looked at: our own memory counts in that of what we start (wait4)
OUT = MIB


def odd_text(data, what, cut=False, control=CONTROL):
    """None, or what is wrong with a text"""
    try:
        text = data.decode("utf-8", errors="ignore" if cut else "strict")
    except UnicodeDecodeError:
        return "%s is not UTF-8" % what
    m = control.search(text)
    return "%s has the control character %r" % (what, m.group()) if m else None


def odd_shape(command, run):
    if command.shape and run.out and len(run.out) < OUT:
        for line in run.out.splitlines() if command.shape == "jsonl" else [run.out]:
            try:
                json.loads(line)
            except ValueError as e:
                return "stdout is no JSON: %s: %r" % (e, line[:200])
    return None


def odd_sentence(command, run):
    lines = run.err.splitlines()
    program = command.argv[0].encode() + b": "
    if run.status == 0:
        return "says, with -q: %r" % run.err[:300] if lines else None
    if not all(line.startswith(program) for line in lines):
        return "stderr: %r" % run.err[:600]
    # of each image; of each error that was let pass
    most = {"info-json": 2, "check-all": 3, "stream-on": 20}.get(command.name, 1)
    if 1 <= len(lines) <= most:
        return None
    return "%d sentences: %r" % (len(lines), run.err[:600])


def judge(build, command, run):
    """What is wrong with this run in itself, or None"""
    if run.status == 99 or b"Sanitizer" in run.err or b"runtime error" in run.err:
        return "sanitizer: %s" % run.err.decode(errors="replace")[:4000]
    if run.late:
        return "hangs: killed after %.1f s" % run.seconds
    if run.status < 0:
        return "killed by signal %d" % -run.status
    if run.cpu > build.limit:
        return "takes %.1f s of processor" % run.cpu
    if not build.sanitized and run.memory > MEMORY:
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if ours >= run.memory:
            return "takes no more than the driver: %d MiB" % (ours // MIB)
        return "takes %d MiB" % (run.memory // MIB)
    if command is HOLDER:
        if run.status not in (0, 1):
            return "status %d" % run.status
        if run.status == 1 and not run.err:
            return "no sentence"
        return odd_text(run.err, "stderr")
    # which opens as a regular file, and cannot be read
    more = (IOERR,) if b"/proc/self/mem: cannot read" in run.err else ()
    if run.status not in (0, DATA, NOINPUT, NOPERM) + command.more + more:
        return "status %d: %r" % (run.status, run.err[:600])
    return odd_sentence(command, run) or odd_text(run.err, "stderr") or \
        odd_text(run.out, "stdout", len(run.out) >= OUT,
                 CONTROL_JSON if command.shape else CONTROL) or odd_shape(command, run)
