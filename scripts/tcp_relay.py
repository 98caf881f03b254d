"""A TCP relay that delays, holds and resets, for tests of what a network does.

    tcp_relay.py LISTEN_PORT TARGET_PORT

Both on loopback. Commands on stdin, one a line, and the relay ends with its stdin:
    delay SECONDS   every piece of data waits so long before it goes on
    jitter SHARE SECONDS   this share of the pieces does
    hold            nothing goes on, and no connection ends: a silent partition
    go              what was held goes on
    reset           every connection is reset
"""

import asyncio
import contextlib
import random
import socket
import struct
import sys

PIECE = 1 << 18


class Relay:
    def __init__(self, target):
        self.target = target
        self.delay = 0.0
        self.share = 1.0
        self.open = asyncio.Event()
        self.open.set()
        self.writers = set()

    async def connect(self, reader, writer):
        try:
            other = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._reset(writer)
            return
        self.writers |= {writer, other[1]}
        await asyncio.gather(self._pump(reader, other[1]), self._pump(other[0], writer))
        self.writers -= {writer, other[1]}

    async def _pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(PIECE):
                if self.delay and random.random() < self.share:
                    await asyncio.sleep(self.delay)
                await self.open.wait()
                writer.write(piece)
                await writer.drain()
        # A worker that died ends both ways.
        writer.close()

    def command(self, line):
        words = line.split()
        if words[0] == "delay":
            self.delay, self.share = float(words[1]), 1.0
        elif words[0] == "jitter":
            self.share, self.delay = map(float, words[1:])
        elif words[0] == "hold":
            self.open.clear()
        elif words[0] == "go":
            self.open.set()
        elif words[0] == "reset":
            for writer in self.writers:
                self._reset(writer)

    @staticmethod
    def _reset(writer):
        end = writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def main():
    relay = Relay(int(sys.argv[2]))
    await asyncio.start_server(relay.connect, "127.0.0.1", int(sys.argv[1]))
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).decode().strip():
        relay.command(line)


if __name__ == "__main__":
    asyncio.run(main())
