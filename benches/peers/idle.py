"""Memory per idle keep-alive connection: open many, ask once on each, leave them open."""

import asyncio
import re
import time

from proxies import Proxy
from table import Column, show

AT_ONCE = 64
ANSWER_SECONDS = 10
SETTLE_SECONDS = 1

COLUMNS = [
    Column("open", "open", "d"),
    Column("non-2xx", "non_2xx", "d"),
    Column("socket errors", "socket_errors", "d"),
    Column("before MiB", "before_mib", ".1f"),
    Column("with MiB", "with_mib", ".1f"),
    Column("KiB each", "each_kib", ".2f"),
]


def idle(proxies: list[Proxy], conns: int) -> dict:
    time.sleep(SETTLE_SECONDS)
    figures = {proxy.name: asyncio.run(hold(proxy, conns)) for proxy in proxies}
    show(COLUMNS, figures)
    return figures


async def hold(proxy: Proxy, conns: int) -> dict:
    """Memory before the connections, and while they are idle."""
    before = proxy.process.memory_kib()
    turn = asyncio.Semaphore(AT_ONCE)
    results = await asyncio.gather(
        *(ask(proxy.port, turn) for _ in range(conns)), return_exceptions=True
    )
    await asyncio.sleep(SETTLE_SECONDS)
    during = proxy.process.memory_kib()
    answered = [result for result in results if not isinstance(result, BaseException)]
    for _, writer in answered:
        writer.close()
    if not answered:
        raise proxy.failure(f"none of {conns} connections was answered: {results[0]!r}")
    return {
        "open": len(answered),
        "non_2xx": sum(status != 200 for status, _ in answered),
        "socket_errors": conns - len(answered),
        "before_mib": before / 1024,
        "with_mib": during / 1024,
        "each_kib": (during - before) / len(answered),
    }


async def ask(port: int, turn: asyncio.Semaphore) -> tuple[int, asyncio.StreamWriter]:
    """One request, its whole answer, and the connection left open behind it."""
    async with turn, asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        await reader.readexactly(int(length.group(1)) if length else 0)
        return int(head.split(b" ", 2)[1]), writer
