"""CPU time per request, side by side.

The figure is the proxy's own CPU time: it does not depend on the load generator that shares the
machine, and divided by nginx's in the same round it does not depend much on the machine either.
"""

import time
from dataclasses import asdict
from statistics import median

from load import wrk
from proxies import Proxy
from rig import Rig
from table import Column, show

REFERENCE = "nginx"
WARM_UP_SECONDS = 2
SETTLE_SECONDS = 0.5

COLUMNS = [
    Column("req/s", "per_second", ".0f"),
    Column("CPU µs/req", "cpu_us", ".2f"),
    Column("× nginx", "times_nginx", ".2f"),
    Column("p50 µs", "p50_us", ".0f"),
    Column("p99 µs", "p99_us", ".0f"),
    Column("non-2xx", "non_2xx", "d"),
    Column("socket errors", "socket_errors", "d"),
    Column("idle MiB", "idle_mib", ".1f"),
    Column("load MiB", "load_mib", ".1f"),
]


def compare(rig: Rig, proxies: list[Proxy], conns: int, secs: int, rounds: int) -> dict:
    """Alternates between the proxies, so that a drift of the machine meets all of them."""
    time.sleep(SETTLE_SECONDS)
    idle = {proxy.name: proxy.process.memory_kib() / 1024 for proxy in proxies}
    for proxy in proxies:
        measure(rig, proxy, conns, min(secs, WARM_UP_SECONDS))
    taken = [{p.name: measure(rig, p, conns, secs) for p in proxies} for _ in range(rounds)]
    figures = {p.name: summary(p.name, idle[p.name], taken) for p in proxies}
    show(COLUMNS, figures)
    return figures


def measure(rig: Rig, proxy: Proxy, conns: int, secs: int) -> dict:
    """One proxy, one round."""
    before = proxy.process.cpu_seconds()
    load = wrk(proxy.url, conns, secs, rig.load_core)
    spent = proxy.process.cpu_seconds() - before
    if not load.requests or not proxy.process.alive():
        raise proxy.failure(f"{load.requests} requests answered, {load.socket_errors} errors")
    return asdict(load) | {
        "cpu_us": spent / load.requests * 1e6,
        "load_mib": proxy.process.memory_kib() / 1024,
    }


def summary(name: str, idle_mib: float, taken: list[dict]) -> dict:
    """Medians over the rounds; what went wrong is added up instead."""
    mine = [a_round[name] for a_round in taken]
    middle = {key: median(r[key] for r in mine) for key in mine[0]}
    added = {key: sum(r[key] for r in mine) for key in ("requests", "non_2xx", "socket_errors")}
    ratio = None
    if REFERENCE in taken[0]:
        ratio = median(a_round[name]["cpu_us"] / a_round[REFERENCE]["cpu_us"] for a_round in taken)
    return middle | added | {"times_nginx": ratio, "idle_mib": idle_mib, "rounds": mine}
