"""A fixed rate, half of what saturates: latency that counts from when each request was due.

Two of those that take part are the data plane alone (`swapping.rs`), once with one token for good
and once with another token every 100 ms, which no identity provider is asked for. They are compared
with each other only.

The slowest hundredth of a quiet second is those that waited for another program's turn on a core: for
milliseconds, where bearerd and its peers take tens of microseconds. So all that takes part goes first.
"""

from load import pace, wrk
from proxies import Proxy
from rig import Absent, Failed

CONNS = 64
RIVALS = ("bearerd", "nginx")
# So many times as many rounds, of a second each: of a tail only the median of many says something.
TIMES, SECS = 15, 1
LEAST_SWAPS_PER_SECOND = 8


def measure(bench, proxies: list[Proxy]) -> list[dict]:
    core = bench.rig.load_core
    most = [wrk(p.url("/"), CONNS, 2, core).per_second for p in proxies if p.name in RIVALS]
    rate = int(min(most) / 2)
    try:
        for process in (bench.upstream, *(proxy.process for proxy in proxies)):
            process.go_first()
    except PermissionError as error:
        raise Absent(str(error)) from error

    def load(proxy: Proxy, _: int) -> dict:
        figures = pace(bench.rig, proxy.port, CONNS, rate, SECS)
        if figures["non_2xx"]:
            raise proxy.failure(f"{figures['non_2xx']} requests were not answered with 200")
        return figures | {"rate": rate}

    rounds = bench.alternate(proxies, load, TIMES)
    for proxy in proxies:
        if proxy.name.startswith("swapped"):
            expect_swaps(proxy, TIMES * bench.rounds * SECS)
    return rounds


def expect_swaps(proxy: Proxy, secs: int) -> None:
    """It counts its tokens aloud."""
    tokens = int(proxy.process.log.read_text().split()[-1])
    if tokens < LEAST_SWAPS_PER_SECOND * secs:
        raise Failed(f"only {tokens} tokens in {secs} s and more")
