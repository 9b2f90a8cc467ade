# SPDX-License-Identifier: MIT
"""A guest at the end of a socket: reads the disk, writes a little, reads it back, leaves.

Answers with an error are the server's right, since the image may be damaged; a wrong byte is
not, nor is an end that nobody asked for.
"""
import socket

import nbd

MIB = 1 << 20
READ = 2 * MIB  # of the disk, from the front


def pair():
    return socket.socketpair()


class Guest:
    def __init__(self, ours):
        self.wrong = None
        self.errors = 0
        self.h = nbd.NBD()
        self.h.connect_socket(ours.detach())
        self.size = self.h.get_size()

    def ask(self, f, *args, **kw):
        """The answer, or None where it is an error"""
        try:
            return f(*args, **kw)
        except nbd.Error as e:
            self.errors += 1
            if not self.h.aio_is_ready():
                raise
            if e.errno is None:
                self.wrong = "an error without a number: %s" % e
            return None

    def extents(self, length):
        if length:
            self.ask(self.h.block_status, length, 0, lambda *args: 0)

    def look(self):
        length = min(self.size, READ)
        data = bytearray()
        for at in range(0, length, 256 << 10):
            n = min(256 << 10, length - at)
            piece = self.ask(self.h.pread, n, at)
            data += piece if piece is not None else bytes(n)
        if self.size > READ:
            self.ask(self.h.pread, 4096, self.size - 4096)
        self.extents(min(self.size, 1 << 30))
        return data

    def write(self):
        """What could be written must be there."""
        for number, at in enumerate((0, 3000, 44000, 300000, self.size - 100)):
            data = bytes([0xc0 + number]) * min(5000, self.size - at)
            if at < 0 or not data:
                continue
            if self.ask(self.h.pwrite, data, at) is None and self.errors:
                continue
            found = self.ask(self.h.pread, len(data), at)
            if found is not None and found != data:
                self.wrong = "what was written at %d is not there" % at
        if self.size > 20000:
            self.ask(self.h.trim, 9000, 10000)
            self.ask(self.h.zero, 5000, 9000)
        self.ask(self.h.flush)


def visit(ours):
    """None, or what is wrong; "refused" if there is no server"""
    try:
        g = Guest(ours)
    except nbd.Error:
        return "refused"
    try:
        g.look()
        g.write()
        g.h.shutdown()
    except nbd.Error as e:
        return "the server went away: %s" % e
    return g.wrong
