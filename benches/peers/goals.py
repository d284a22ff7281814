"""What a figure must reach, judged by medians over the rounds."""

from dataclasses import dataclass
from statistics import median


def values(rounds: list[dict], name: str, figure: str) -> list[float]:
    """One a round; none if it did not take part."""
    return [a_round[name][figure] for a_round in rounds if name in a_round]


def ratio(rounds: list[dict], of: str, to: str, figure: str) -> float | None:
    """The median of the rounds' ratios: a slow round is slow for both."""
    pairs = zip(values(rounds, of, figure), values(rounds, to, figure), strict=False)
    ratios = [ours / theirs for ours, theirs in pairs]
    return median(ratios) if ratios else None


@dataclass(frozen=True)
class Ratio:
    """`of` over `to`."""

    to: str
    at_most: float | None = None
    of: str = "bearerd"
    at_least: float | None = None

    def judge(self, rounds: list[dict], figure: str) -> tuple[str, bool | None]:
        found = ratio(rounds, self.of, self.to, figure)
        subject = "" if self.of == "bearerd" else f"{self.of}: "
        if found is None:
            return f"{subject}no {self.to}", None
        if self.at_least:
            return f"{subject}{found:.2f} × {self.to} (≥ {self.at_least:.2f})", found >= self.at_least
        return f"{subject}{found:.2f} × {self.to} (≤ {self.at_most:.2f})", found <= self.at_most


@dataclass(frozen=True)
class Less:
    """So many times less than a peer."""

    than: str
    at_least: float

    def judge(self, rounds: list[dict], figure: str) -> tuple[str, bool | None]:
        found = ratio(rounds, self.than, "bearerd", figure)
        if found is None:
            return f"no {self.than}", None
        return f"{found:.1f} × less than {self.than} (≥ {self.at_least:.1f})", found >= self.at_least


@dataclass(frozen=True)
class AtMost:
    """No more than so much."""

    limit: float

    def judge(self, rounds: list[dict], figure: str) -> tuple[str, bool]:
        found = median(values(rounds, "bearerd", figure))
        return f"≤ {self.limit:g}", found <= self.limit


@dataclass(frozen=True)
class Told:
    """A ratio that has no bound."""

    to: str

    def judge(self, rounds: list[dict], figure: str) -> tuple[str, None]:
        found = ratio(rounds, "bearerd", self.to, figure)
        return (f"{found:.2f} × {self.to}" if found else f"no {self.to}"), None
