"""The works that are measured, with what each must reach."""

from collections.abc import Callable
from dataclasses import dataclass, field

import idle
import paced
import saturated
import starting
import threads
from goals import AtMost, Less, Ratio, Told

ALL = ("bearerd", "nginx", "haproxy", "tcp-relay", "envoy")
HTTP = ("bearerd", "nginx", "haproxy", "envoy")


@dataclass(frozen=True)
class Line:
    """One figure of a work: a line of the table."""

    figure: str
    unit: str
    form: str
    goals: tuple


@dataclass(frozen=True)
class Work:
    """What is done, by whom, and what is looked at."""

    key: str
    title: str
    proxies: tuple
    measure: Callable
    lines: tuple
    # What the configurations are told beside the usual.
    values: dict = field(default_factory=dict)


def per_byte(key: str, title: str, **options) -> Work:
    line = Line("cpu_us_per_mib", "CPU µs/MiB", ".0f", (Ratio("nginx", 1.05),))
    return Work(key, title, HTTP, saturated.bodies(**options), (line,))


WORKS = (
    Work(
        "small",
        "64 connections, small GET",
        ALL,
        saturated.requests(conns=64),
        (
            Line(
                "cpu_us",
                "CPU µs/request",
                ".2f",
                (Ratio("nginx", 1.00), Less("envoy", 4.5), Told("tcp-relay")),
            ),
        ),
    ),
    Work(
        "one",
        "1 connection, small GET",
        ALL,
        saturated.requests(conns=1),
        (Line("p50_us", "median µs", ".0f", (Ratio("nginx", 1.00),)),),
    ),
    Work(
        "paced",
        "64 connections at half the saturated rate",
        ("bearerd", "nginx", "never swapped", "swapped every 100 ms"),
        paced.measure,
        tuple(
            Line(
                figure,
                unit,
                ".0f",
                (Ratio("nginx", 1.00), Ratio("never swapped", 1.10, of="swapped every 100 ms")),
            )
            for figure, unit in (("p99_us", "p99 µs"), ("p999_us", "p99.9 µs"))
        ),
    ),
    per_byte("down-16k", "16 KiB responses", path="/16k", mib=1 / 64, conns=64),
    per_byte("down-1m", "1 MiB responses", path="/1m", mib=1, conns=16),
    per_byte("up-1m", "1 MiB uploads", path="/up", mib=1, conns=16, upload=True),
    Work(
        "tls",
        "TLS to the upstream, kept alive",
        HTTP,
        saturated.requests(conns=64),
        (Line("cpu_us", "CPU µs/request", ".2f", (Ratio("nginx", 1.00),)),),
        {"tls": True},
    ),
    Work(
        "h2",
        "HTTP/2 in, HTTP/1.1 out",
        HTTP,
        saturated.streams,
        (Line("cpu_us", "CPU µs/request", ".2f", (Less("envoy", 2.0),)),),
        {"h2": True},
    ),
    Work(
        "idle",
        "9,000 idle connections after one request each",
        ALL,
        idle.measure,
        (
            Line("each_kib", "KiB each", ".1f", (AtMost(16),)),
            Line("before_mib", "MiB before them", ".1f", (AtMost(10),)),
        ),
        {"worker_connections": 9500},
    ),
    Work(
        "threads",
        "2 worker threads, a fifth of a core each",
        (),
        threads.measure,
        (
            Line(
                "per_second", "requests/s", ".0f", (Ratio("1 thread", at_least=1.8, of="2 threads"),)
            ),
        ),
    ),
    Work(
        "start",
        "start to the first proxied request",
        (),
        starting.measure,
        (
            Line("start_ms", "ms", ".1f", (AtMost(50),)),
            Line("program_mb", "MB of program", ".2f", (AtMost(10),)),
        ),
    ),
)
