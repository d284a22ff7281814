"""A fixed rate, half of what saturates: latency that counts from when each request was due.

Two of those that take part are the data plane alone (`swapping.rs`), once with one token for good
and once with another token every 100 ms, which no identity provider is asked for. They are compared
with each other only.
"""

from load import pace, wrk
from proxies import Proxy
from rig import Failed

CONNS = 64
RIVALS = ("bearerd", "nginx")
LEAST_SWAPS_PER_SECOND = 8


def measure(bench, proxies: list[Proxy]) -> list[dict]:
    core = bench.rig.load_core
    most = [wrk(p.url("/"), CONNS, 2, core).per_second for p in proxies if p.name in RIVALS]
    rate = int(min(most) / 2)

    def load(proxy: Proxy, secs: int) -> dict:
        figures = pace(bench.rig, proxy.port, CONNS, rate, secs)
        if figures["non_2xx"]:
            raise proxy.failure(f"{figures['non_2xx']} requests were not answered with 200")
        return figures | {"rate": rate}

    rounds = bench.alternate(proxies, load)
    for proxy in proxies:
        if proxy.name.startswith("swapped"):
            expect_swaps(proxy, bench.rounds * bench.secs)
    return rounds


def expect_swaps(proxy: Proxy, secs: int) -> None:
    """It counts its tokens aloud."""
    tokens = int(proxy.process.log.read_text().split()[-1])
    if tokens < LEAST_SWAPS_PER_SECOND * secs:
        raise Failed(f"only {tokens} tokens in {secs} s and more")
