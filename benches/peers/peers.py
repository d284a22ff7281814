#!/usr/bin/env python3
"""bearerd beside nginx, HAProxy, a bare TCP relay and Envoy, on this machine.

compare (the default): CPU time per request under load; idle: memory per idle connection.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from compare import compare
from idle import idle
from proxies import PROXIES, Proxy, start
from rig import MAX_BODY, MAX_CLIENTS, Absent, Failed, Rig, find

ROOT = Path(__file__).resolve().parents[2]
MIN_ROUNDS = 3  # fewer have no median
CONNS = {"compare": 64, "idle": 1000}


def main() -> int:
    options = parse_arguments()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit("peers.py: told to stop"))
    allow_many_connections()
    try:
        with ExitStack() as stack:
            figures, left_out = run(options, stack)
    except (Absent, Failed) as problem:
        print(f"peers.py: {problem}", file=sys.stderr)
        return 1
    if options.json:
        write_json(options, figures, left_out)
    return verdict(figures)


def run(options: argparse.Namespace, stack: ExitStack) -> tuple[dict, dict]:
    """Starts what is to be measured, measures it, and says what is missing."""
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bearerd-peers-")))
    rig = Rig(home, options.bearerd, options.body)
    if options.measure == "compare":
        find("wrk")
    stack.enter_context(rig.upstream())
    proxies, left_out = start_all(rig, options.only, stack)
    if options.measure == "idle":
        figures = idle(proxies, options.conns)
    else:
        figures = compare(rig, proxies, options.conns, options.secs, options.rounds)
    for name, reason in left_out.items():
        print(f"LEFT OUT: {name} ({reason})")
    return figures, left_out


def start_all(rig: Rig, wanted: list[str], stack: ExitStack) -> tuple[list[Proxy], dict]:
    """A peer may be absent; bearerd may not, unless nobody asked for it."""
    proxies, left_out = [], {}
    for name in wanted:
        try:
            proxy = start(rig, name)
        except Absent as absence:
            if name == "bearerd":
                raise
            left_out[name] = str(absence)
            print(f"LEFT OUT: {name} ({absence})", file=sys.stderr)
            continue
        stack.enter_context(proxy.process)
        proxy.await_answer(rig.body)
        proxies.append(proxy)
    if not proxies:
        raise Failed("nothing to measure")
    return proxies, left_out


def verdict(figures: dict) -> int:
    """bearerd has to answer every request; of its peers the table tells."""
    ours = figures.get("bearerd")
    if ours and (ours["non_2xx"] or ours["socket_errors"]):
        print("peers.py: bearerd left requests without a 2xx answer", file=sys.stderr)
        return 1
    return 0


def write_json(options: argparse.Namespace, figures: dict, left_out: dict) -> None:
    """With the options that shaped these figures, since figures alone cannot be compared."""
    shaping = ["conns", "body"] + (["secs", "rounds"] if options.measure == "compare" else [])
    document = {
        "measure": options.measure,
        "options": {key: getattr(options, key) for key in shaping},
        "left_out": left_out,
        "proxies": figures,
    }
    options.json.write_text(json.dumps(document, indent=2) + "\n")


def allow_many_connections() -> None:
    """The children inherit it: nginx and HAProxy need a descriptor for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("measure", nargs="?", choices=CONNS, default="compare")
    add("--bearerd", type=Path, default=ROOT / "target/release/bearerd", metavar="PROGRAM")
    add("--conns", type=between(1, MAX_CLIENTS), metavar="N", help="64 unless told, or 1000 idle")
    add("--secs", type=between(1, 3600), default=6, metavar="N", help="length of a round")
    add("--rounds", type=between(MIN_ROUNDS, 1000), default=MIN_ROUNDS, metavar="N")
    add("--body", type=between(0, MAX_BODY), default=128, metavar="BYTES", help="of each response")
    add("--only", type=names, default=list(PROXIES), metavar="NAME,...", help=", ".join(PROXIES))
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    options.conns = options.conns or CONNS[options.measure]
    return options


def between(least: int, most: int):
    """A whole number, and an error that names the bounds."""

    def whole_number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return int(text)

    return whole_number


def names(text: str) -> list[str]:
    wanted = list(dict.fromkeys(text.split(",")))
    unknown = set(wanted) - set(PROXIES)
    if unknown:
        raise argparse.ArgumentTypeError(f"no such proxy: {', '.join(sorted(unknown))}")
    return wanted


if __name__ == "__main__":
    sys.exit(main())
