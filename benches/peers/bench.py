"""Measures one work: starts what takes part in it, and lets all take turns.

Rounds alternate, so that a drift of the machine meets all of them, and what is compared is compared
within a round. A work has fresh processes: no other work's leftovers count.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from proxies import Proxy, start
from rig import Absent, Rig

SETTLE_SECONDS = 0.3


class Bench:
    """What a work is measured with."""

    def __init__(self, home: Path, bearerd: Path, secs: int, rounds: int):
        self.rig = Rig(home, bearerd)
        self.secs = secs
        self.rounds = rounds
        self.upstream = None

    def measure(self, work) -> dict:
        """Every round's figures, `{name: {figure: value}}`, and who could not take part."""
        with ExitStack() as stack:
            self.upstream = stack.enter_context(self.rig.upstream())
            proxies, left_out = self._start_all(work, stack)
            time.sleep(SETTLE_SECONDS)
            rounds = work.measure(self, proxies)
        return {"rounds": rounds, "left_out": left_out}

    def _start_all(self, work, stack: ExitStack) -> tuple[list[Proxy], dict]:
        """A peer may be absent; bearerd may not."""
        proxies, left_out = [], {}
        for name in work.proxies:
            try:
                proxy = start(self.rig, name, work.values)
            except Absent as absence:
                if name == "bearerd":
                    raise
                left_out[name] = str(absence)
                print(f"LEFT OUT: {name} ({absence})")
                continue
            stack.enter_context(proxy.process)
            proxy.await_answer()
            proxies.append(proxy)
        return proxies, left_out

    def alternate(self, proxies: list[Proxy], load, times: int = 1) -> list[dict]:
        """`load(proxy, secs)` gives the figures of one proxy in one round; so many `times` as many rounds."""
        for proxy in proxies:
            load(proxy, 1)  # warm-up
        # To and fro: whoever comes after a pause, or after the same one each time, has it a little otherwise.
        orders = [proxies, proxies[::-1]]
        return [
            {p.name: load(p, self.secs) for p in orders[number % 2]}
            for number in range(times * self.rounds)
        ]
