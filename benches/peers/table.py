"""One line a figure, a column a proxy, and what must be reached."""

from statistics import median

from goals import values

COLUMNS = ("bearerd", "nginx", "haproxy", "tcp-relay", "envoy")
TITLE, UNIT, CELL = 46, 17, 10


class Table:
    """Printed line by line, since measuring takes its time."""

    def __init__(self):
        self.missed = []

    def begin(self) -> None:
        names = "".join(name.rjust(CELL) for name in COLUMNS)
        print("work".ljust(TITLE) + "figure".ljust(UNIT) + names + "   reached (must be)")

    def add(self, work, result: dict) -> None:
        rounds, title = result["rounds"], work.title
        for line in work.lines:
            cells = "".join(cell(rounds, name, line).rjust(CELL) for name in COLUMNS)
            print(title.ljust(TITLE) + line.unit.ljust(UNIT) + cells + "   " + self._judge(work, line, rounds))
            for name in rounds[0]:
                if name not in COLUMNS:
                    print(("  " + name).ljust(TITLE + UNIT) + cell(rounds, name, line).rjust(CELL))
            title = ""

    def _judge(self, work, line, rounds: list[dict]) -> str:
        said = []
        for goal in line.goals:
            text, met = goal.judge(rounds, line.figure)
            if met is False:
                self.missed.append(f"{work.key} {line.figure}: {text}")
            said.append(text + {True: " yes", False: " NO", None: ""}[met])
        return "; ".join(said)

    def end(self, seconds: float) -> None:
        print(f"\nMedians over the rounds; {seconds:.0f} s.")
        for miss in self.missed:
            print(f"MISSED: {miss}")


def cell(rounds: list[dict], name: str, line) -> str:
    found = values(rounds, name, line.figure)
    return format(median(found), line.form) if found else "-"
