"""The load generators: wrk, h2load and our own pace, driven and read."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from processes import on_core
from rig import Failed, Rig, built, find

MICROSECONDS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True)
class Load:
    """What one run saw; a generator that does not tell a latency says None."""

    requests: int
    per_second: float
    p50_us: float | None
    p99_us: float | None
    # Not answered with 2xx, or not answered.
    failed: int


def wrk(url: str, conns: int, secs: int, core: int, script: Path | None = None) -> Load:
    """Saturates the URL over keep-alive HTTP/1.1 connections, from one thread."""
    scripted = ["-s", script] if script else []
    options = ["-t1", f"-c{conns}", f"-d{secs}s", "--latency", *scripted]
    report = output(on_core(core, [find("wrk"), *options, url]))
    # wrk counts as failed what is over 399; the upstream answers nothing between 200 and that.
    failed = number(r"Non-2xx or 3xx responses: (\d+)", report) + socket_errors(report)
    return Load(
        requests=int(number(r"(\d+) requests in", report)),
        per_second=number(r"Requests/sec:\s+([\d.]+)", report),
        p50_us=latency("50%", report),
        p99_us=latency("99%", report),
        failed=int(failed),
    )


def h2load(url: str, conns: int, streams: int, secs: int, core: int) -> Load:
    """Saturates the URL over HTTP/2 with prior knowledge."""
    options = [f"-c{conns}", f"-m{streams}", f"-D{secs}", "-t1"]
    report = output(on_core(core, [find("h2load"), *options, url]))
    requests = int(number(r"(\d+) 2xx,", report))
    return Load(
        requests=requests,
        per_second=requests / secs,
        p50_us=None,
        p99_us=None,
        failed=int(number(r"(\d+) failed,", report) + number(r"(\d+) 5xx", report)),
    )


def pace(rig: Rig, port: int, conns: int, rate: int, secs: int) -> dict:
    """See pace.rs."""
    arguments = [f"127.0.0.1:{port}", conns, rate, secs]
    command = ["chrt", "--fifo", 1, built("pace"), *arguments]
    return json.loads(output(on_core(rig.load_core, command)))


def output(command: list[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failed(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
    return run.stdout


def number(pattern: str, report: str) -> float:
    """Zero where the report does not mention it."""
    found = re.search(pattern, report)
    return float(found.group(1)) if found else 0.0


def latency(percentile: str, report: str) -> float:
    found = re.search(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s|m)\s*$", report, re.MULTILINE)
    if not found:
        raise Failed(f"wrk reports no latency at {percentile}:\n{report}")
    return float(found.group(1)) * MICROSECONDS[found.group(2)]


def socket_errors(report: str) -> int:
    """Connections refused, reset or timed out, together."""
    found = re.search(r"Socket errors: (.*)", report)
    return sum(map(int, re.findall(r"\d+", found.group(1)))) if found else 0
