"""As much load as the generator can make: CPU time for each request or byte, and latency.

The figure is the proxy's own CPU time: it does not depend on the load generator that shares the
machine, and divided by a peer's in the same round it does not depend much on the machine either.
"""

from dataclasses import asdict

from load import Load, h2load, wrk
from proxies import Proxy


def requests(conns: int):
    """Small requests over `conns` connections."""

    def measure(bench, proxies: list[Proxy]) -> list[dict]:
        def load(proxy: Proxy, secs: int) -> dict:
            return costed(proxy, lambda: wrk(proxy.url("/"), conns, secs, bench.rig.load_core))

        return bench.alternate(proxies, load)

    return measure


def bodies(path: str, mib: float, conns: int, upload: bool = False):
    """Requests or responses with a body of `mib` MiB."""

    def measure(bench, proxies: list[Proxy]) -> list[dict]:
        script = bench.rig.upload_script(int(mib * 2**20)) if upload else None

        def load(proxy: Proxy, secs: int) -> dict:
            url, core = proxy.url(path), bench.rig.load_core
            figures = costed(proxy, lambda: wrk(url, conns, secs, core, script))
            return figures | {"cpu_us_per_mib": figures["cpu_us"] / mib}

        return bench.alternate(proxies, load)

    return measure


def streams(bench, proxies: list[Proxy]) -> list[dict]:
    """HTTP/2 from eight connections with eight streams each."""

    def load(proxy: Proxy, secs: int) -> dict:
        return costed(proxy, lambda: h2load(proxy.url("/"), 8, 8, secs, bench.rig.load_core))

    return bench.alternate(proxies, load)


def costed(proxy: Proxy, run) -> dict:
    """What a load came to, and the CPU time of the proxy under it."""
    before = proxy.process.cpu_seconds()
    load: Load = run()
    spent = proxy.process.cpu_seconds() - before
    if not load.requests or not proxy.process.alive():
        raise proxy.failure(f"{load.requests} requests answered, {load.failed} failed")
    if load.failed:
        raise proxy.failure(f"{load.failed} of {load.requests} requests failed")
    return asdict(load) | {
        "cpu_us": spent / load.requests * 1e6,
        "load_mib": proxy.process.memory_kib() / 1024,
    }
