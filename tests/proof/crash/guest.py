#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""guest.py RECORDER SEED RAW URI: the guest of tests/live-load, whose requests go
into the log of a recorded run, in one order with what the disk's processes do.

RECORDER is the library built from record.c (with RECORD_LOG and RECORD_FOLDER set); RAW the
disk's content before. Says that it begins, and ends at SIGTERM, with all flushed. With QUIET set it does little, and
flushes only then: what is durable until then the others have made so.
"""
import argparse
import ctypes
import importlib.machinery
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
load = importlib.machinery.SourceFileLoader(
    "live_load", os.path.join(HERE, "../../live-load")).load_module()

# enum log_kind (log.h)
KINDS = {"write": 11, "zero": 12, "trim": 13, "flush": 14}
FUA = 1


class Guest(load.Load):
    def __init__(self, args):
        super().__init__(args)
        self.recorder = ctypes.CDLL(args.recorder)
        self.recorder.record_guest.restype = ctypes.c_uint64
        self.recorder.record_guest.argtypes = [
            ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p,
            ctypes.c_uint32]
        self.recorder.record_guest_ended.argtypes = [ctypes.c_uint64, ctypes.c_int64]
        self.flags = 0
        self.stop = False
        self.quiet = "QUIET" in os.environ
        signal.signal(signal.SIGTERM, self.end)

    def end(self, *_):
        self.stop = True

    def work(self):
        """Until it is told to end; not so fast that the log becomes long."""
        while not self.stop:
            if len(self.flying) < self.args.depth:
                self.send_one()
            self.turn(1)
            time.sleep(0.02 if self.quiet else 0.001)
        self.flush(self.handles[0], 0, 0, 0)
        while self.flying or self.again:
            self.turn(1000)

    def choose_kind(self):
        # more changes and flushes than live-load has
        dice = self.rng.randrange(100)
        for limit, kind in ((8, "read"), (60, "write"), (72, "zero"), (84, "trim")):
            if dice < limit:
                return kind
        return "read" if self.quiet else "flush"

    def change(self, what, h, piece, flags):
        self.flags = FUA if flags & load.nbd.CMD_FLAG_FUA else 0
        return super().change(what, h, piece, flags)

    def fly(self, what, begin, length, piece, ended):
        completion = super().fly(what, begin, length, piece, ended)
        if what not in KINDS:
            return completion
        data = piece[2] if what == "write" else None
        place = self.recorder.record_guest(KINDS[what], begin, length, data,
                                           self.flags if piece else 0)

        def recorded(error):
            self.recorder.record_guest_ended(place, error.value)
            return completion(error)

        return recorded


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recorder")
    parser.add_argument("seed", type=int)
    parser.add_argument("initial")
    parser.add_argument("uri")
    args = parser.parse_args()
    args.connections, args.depth, args.max, args.align = 3, 8, 256 * load.KIB, 1
    args.trim, args.allow = True, []
    args.final = args.state = None
    guest = Guest(args)
    guest.connect()
    print("begins", flush=True)
    guest.work()
    guest.compare_all()
    for h in guest.handles:
        h.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
