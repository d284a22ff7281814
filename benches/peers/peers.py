#!/usr/bin/env python3
"""bearerd beside nginx, HAProxy, a bare TCP relay and Envoy, on this machine: one table, one chart."""

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import chart
from bench import Bench
from rig import Absent, Failed
from table import Table
from works import WORKS

ROOT = Path(__file__).resolve().parents[2]
MIN_ROUNDS = 3  # fewer have no median


def main() -> int:
    options = parse_arguments()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit("peers.py: told to stop"))
    allow_many_connections()
    table = Table()
    table.begin()
    results, begun = {}, time.monotonic()
    for work in WORKS:
        if options.only and work.key not in options.only:
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="bearerd-peers-") as home:
                bench = Bench(Path(home), options.bearerd, options.secs, options.rounds)
                result = bench.measure(work)
        except (Absent, Failed) as problem:
            print(f"LEFT OUT: {work.title}: {problem}")
            continue
        results[work.key] = result
        table.add(work, result)
    table.end(time.monotonic() - begun)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(chart.draw(results))
    return 0 if len(results) == len(options.only or WORKS) else 1


def allow_many_connections() -> None:
    """The children inherit it: nginx and HAProxy need a descriptor for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--bearerd", type=Path, default=ROOT / "target/release/bearerd", metavar="PROGRAM")
    add("--only", type=works, metavar="WORK,...", help=", ".join(work.key for work in WORKS))
    add("--secs", type=at_least(1), default=3, metavar="N", help="length of a round")
    add("--rounds", type=at_least(MIN_ROUNDS), default=MIN_ROUNDS, metavar="N")
    add("--json", type=Path, metavar="FILE", help="write every round's figures there, too")
    add("--svg", type=Path, metavar="FILE", help="draw the chart there")
    return parser.parse_args()


def at_least(least: int):
    """A whole number, and an error that names the bound."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return whole_number


def works(text: str) -> list[str]:
    wanted = text.split(",")
    unknown = set(wanted) - {work.key for work in WORKS}
    if unknown:
        raise argparse.ArgumentTypeError(f"no such work: {', '.join(sorted(unknown))}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
