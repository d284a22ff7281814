"""The load generator: wrk, driven and read."""

import re
import subprocess
from dataclasses import dataclass

from processes import on_core
from rig import Failed, find

MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    requests: int
    per_second: float
    p50_us: float
    p99_us: float
    non_2xx: int
    socket_errors: int


def wrk(url: str, conns: int, secs: int, core: int) -> Load:
    """Saturates the URL over keep-alive connections, from one thread."""
    options = ["-t1", f"-c{conns}", f"-d{secs}s", "--latency"]
    command = on_core(core, [find("wrk"), *options, url])
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failed(f"wrk failed:\n{run.stdout}{run.stderr}")
    return read(run.stdout)


def read(report: str) -> Load:
    """wrk counts as failed what is over 399; the upstream answers nothing between 200 and that."""
    return Load(
        requests=int(number(r"(\d+) requests in", report)),
        per_second=number(r"Requests/sec:\s+([\d.]+)", report),
        p50_us=latency("50%", report),
        p99_us=latency("99%", report),
        non_2xx=int(number(r"Non-2xx or 3xx responses: (\d+)", report)),
        socket_errors=socket_errors(report),
    )


def number(pattern: str, report: str) -> float:
    """Zero where wrk does not mention it."""
    found = re.search(pattern, report)
    return float(found.group(1)) if found else 0.0


def latency(percentile: str, report: str) -> float:
    found = re.search(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s|m)$", report, re.MULTILINE)
    if not found:
        raise Failed(f"wrk reports no latency at {percentile}:\n{report}")
    return float(found.group(1)) * MICROSECONDS[found.group(2)]


def socket_errors(report: str) -> int:
    """Connections refused, reset or timed out, together."""
    found = re.search(r"Socket errors: (.*)", report)
    return sum(map(int, re.findall(r"\d+", found.group(1)))) if found else 0
