"""Memory per idle keep-alive connection: open many, ask once on each, leave them open."""

import asyncio
import re
import time

from proxies import Proxy

CONNECTIONS = 9000
AT_ONCE = 64
ANSWER_SECONDS = 10
SETTLE_SECONDS = 2


def measure(_, proxies: list[Proxy]) -> list[dict]:
    """One round: what a connection once took is not taken anew in a second one."""
    time.sleep(SETTLE_SECONDS)
    return [{proxy.name: asyncio.run(hold(proxy)) for proxy in proxies}]


async def hold(proxy: Proxy) -> dict:
    """Memory before the connections, and while they are idle."""
    before = proxy.process.memory_kib()
    turn = asyncio.Semaphore(AT_ONCE)
    results = await asyncio.gather(
        *(ask(proxy.port, turn) for _ in range(CONNECTIONS)), return_exceptions=True
    )
    await asyncio.sleep(SETTLE_SECONDS)
    during = proxy.process.memory_kib()
    failed = [result for result in results if isinstance(result, BaseException)]
    if failed:
        raise proxy.failure(f"{len(failed)} of {CONNECTIONS} were not answered: {failed[0]!r}")
    for writer in results:
        writer.close()
    return {
        "before_mib": before / 1024,
        "with_mib": during / 1024,
        "each_kib": (during - before) / CONNECTIONS,
    }


async def ask(port: int, turn: asyncio.Semaphore) -> asyncio.StreamWriter:
    """One request, its whole answer, and the connection left open behind it."""
    async with turn, asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered with {head.splitlines()[0]!r}")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        await reader.readexactly(int(length.group(1)) if length else 0)
        return writer
