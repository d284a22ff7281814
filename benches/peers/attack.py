#!/usr/bin/env python3
"""What an honest caller notices while others attack: its latency quiet and under each attack, and the
memory that bearerd uses beside the bound that `bearerd check` prints.

bearerd has one core. The honest caller and its upstream share the other with the attackers and the upstream
of those, who get what is left of it: at the same time as they, for want of more cores, but never after
them. So what the honest caller notices is bearerd's.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from processes import Process, free_ports, go_first
from proxies import Proxy
from rig import Absent, Failed, Rig, find

ROOT = Path(__file__).resolve().parents[2]
UPLOADS, UPLOAD_BYTES, AT_ONCE = 1000, 10 << 20, 1000
CONFIGURATION = """
[server]
listen = ["127.0.0.1:{port}"]
admin = "127.0.0.1:{admin}"
[server.limits]
connections = {connections}
[credentials.token]
provider = "file"
path = "{home}/token"
[[routes]]
name = "uploads"
path_prefix = "/upload"
upstream = "http://127.0.0.1:{sink}"
credential = "token"
replay = {{ body_bytes = {upload_bytes} }}
[[routes]]
name = "api"
upstream = "http://127.0.0.1:{guarded}"
credential = "token"
"""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def block() -> bytes:
    """GET / of localhost over http, by the static table (RFC 7541 appendix A)."""
    return bytes([0x82, 0x84, 0x86, 0x01, 9]) + b"localhost"


class Sink(asyncio.Protocol):
    """An upstream that reads bodies to their end and answers then; only Content-Length."""

    def connection_made(self, transport):
        self.transport, self.head, self.left = transport, b"", 0

    def data_received(self, data):
        while data:
            if self.left == 0:
                self.head += data
                head, end, data = self.head.partition(b"\r\n\r\n")
                if not end:
                    return
                self.head = b""
                lengths = [l for l in head.lower().split(b"\r\n") if l.startswith(b"content-length")]
                self.left = int(lengths[0].split(b":")[1])
            took = min(self.left, len(data))
            self.left -= took
            data = data[took:]
            if self.left == 0:
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def sink(port: int):
    async def serve():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Sink, "127.0.0.1", port, backlog=4096)
        await server.serve_forever()

    asyncio.run(serve())


async def connect(port: int):
    """Its sender does not pace. BBR, which may be the machine's choice, does by timers, and those of a sender
    on the same machine run on the core of who reads from it: bearerd's."""
    caller = socket.socket()
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    caller.setblocking(False)
    await asyncio.get_running_loop().sock_connect(caller, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=caller)


async def many(count: int, attack):
    async def one(index: int):
        while True:
            try:
                await attack(index)
            except OSError:
                await asyncio.sleep(0.1)  # turned off, and back again

    await asyncio.gather(*(one(index) for index in range(count)))


def slow_heads(port: int):
    async def drip(_):
        while True:
            _, writer = await connect(port)
            writer.write(HEAD)
            for _ in range(600):
                await asyncio.sleep(0.5)
                writer.write(b"X")
                await writer.drain()

    asyncio.run(many(2000, drip))


def idle(port: int):
    async def wait(_):
        while True:
            reader, _ = await connect(port)
            await reader.read()

    asyncio.run(many(2000, wait))


def uploads(port: int):
    async def upload(_):
        reader, writer = await connect(port)
        head = f"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n"
        writer.write(head.encode())
        piece = bytes(1 << 16)
        for _ in range(UPLOAD_BYTES // len(piece)):
            writer.write(piece)
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    async def all_of_them():
        start = time.monotonic()
        done = 0
        while True:
            await asyncio.gather(*(upload(n) for n in range(AT_ONCE)))
            done += AT_ONCE
            if done == UPLOADS:
                print(f"  {UPLOADS} x 10 MiB uploads took {time.monotonic() - start:.1f} s")

    asyncio.run(all_of_them())


def flood(port: int, frames) -> None:
    while True:
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.settimeout(0.5)
            try:
                caller.sendall(PREFACE)
                stream = 1
                while True:
                    piece = b"".join(frames(stream + 2 * n) for n in range(500))
                    stream += 1000
                    caller.sendall(piece)
                    time.sleep(0)
            except OSError:
                pass  # turned off, or held back


def resets(port: int):
    flood(port, lambda on: frame(1, 5, on, block()) + frame(3, 0, on, b"\0\0\0\x08"))


def pings(port: int):
    flood(port, lambda _: frame(6, 0, 0, bytes(8)))


def continuations(port: int):
    flood(port, lambda on: frame(1 if on == 1 else 9, 0, 1, block() if on == 1 else b""))


ATTACKS = {
    "quiet": None,
    "2,000 slow heads": slow_heads,
    "2,000 idle connections": idle,
    "1,000 uploads of 10 MiB": uploads,
    "rapid reset": resets,
    "ping flood": pings,
    "CONTINUATION flood": continuations,
}


def honest(port: int, seconds: float) -> list[float]:
    """Milliseconds that one request after the other takes."""
    took = []
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            start = time.perf_counter()
            caller.sendall(HEAD + b"\r\n")
            answer = caller.recv(65536)
            took.append((time.perf_counter() - start) * 1000)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise Failed(f"the honest caller was told {answer[:80]!r}")
            time.sleep(0.001)
    return took


def peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure(name: str, attack, options, rig: Rig, upstream: Process, sink_port: int) -> None:
    with ExitStack() as stack:
        port, admin = free_ports(2)
        configuration = rig.home / "attack.toml"
        configuration.write_text(
            CONFIGURATION.format(
                port=port,
                admin=admin,
                connections=4000,
                sink=sink_port,
                upload_bytes=UPLOAD_BYTES,
                **rig.values,
            )
        )
        command = [rig.bearerd, "run", "--config", configuration]
        process = stack.enter_context(Process(command, rig.proxy_core, rig.home / "bearerd.out"))
        Proxy("bearerd", port, process, h2=False).await_answer()
        upstream.go_first()
        if attack:
            attacker = multiprocessing.Process(target=attack, args=(port,), daemon=True)
            attacker.start()
            stack.callback(attacker.kill)
            time.sleep(2)
        took = sorted(honest(port, options.secs))
        said = subprocess.run(
            [rig.bearerd, "check", "--config", configuration], capture_output=True, text=True
        ).stdout
        bound = next(line for line in said.splitlines() if line.startswith("memory"))
        bound = next(word for word in bound.split() if word.isdigit())
        p99 = took[len(took) * 99 // 100]
        memory = f"{peak_mib(process.child.pid):.0f} of {bound}"
        print(f"| {name} | {len(took)} | {statistics.median(took):.2f} | {p99:.2f} | {memory} |")
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bearerd", type=Path, default=ROOT / "target/release/bearerd")
    parser.add_argument("--secs", type=float, default=20)
    parser.add_argument("--only", help="a part of the attack's name")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        find("nginx")
        with ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="bearerd-attack-"))
            rig = Rig(Path(home), options.bearerd)
            os.sched_setaffinity(0, {rig.load_core})
            upstream = stack.enter_context(rig.upstream())
            go_first(os.getpid())
            [sink_port] = free_ports(1)
            reading = multiprocessing.Process(target=sink, args=(sink_port,), daemon=True)
            reading.start()
            stack.callback(reading.kill)
            print("| attack | honest requests | p50 ms | p99 ms | peak MiB |")
            print("| --- | --- | --- | --- | --- |")
            for name, attack in ATTACKS.items():
                if not options.only or options.only in name or name == "quiet":
                    measure(name, attack, options, rig, upstream, sink_port)
    except (PermissionError, Absent, Failed) as problem:
        print(f"attack.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
