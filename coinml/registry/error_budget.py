"""The budget of false promotions: how sure the gate must be at each try.

Each try of a version against the champion may promote by luck, and the more tries, the more often
one of them does. The gate therefore spends from a budget: the versions of one call share half of
what is left, each an equal part, which is the significance level of its tests. (Unequal parts in
the order of their val accuracy would give the largest to the luckiest.) The budget is refilled over
the year. Within any 365 days the levels sum to at most `FULL + REFILL_A_YEAR` = 0.05, and by the
union bound the probability of a false promotion is at most that sum: however many versions are
tried, and however much their val videos overlap.

Sources: Lan, K. K. G. & DeMets, D. L. (1983). Discrete sequential boundaries for clinical trials.
Biometrika 70, 659-663 (spending a level over time). Foster, D. P. & Stine, R. A. (2008).
Alpha-investing. Journal of the Royal Statistical Society B 70, 429-444 (a level from what is left).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from coinml.errors import RegistryError

FULL = 0.04
"""The budget at the first try, and the most that it is refilled to."""

REFILL_A_YEAR = 0.01

_SHARE = 0.5
_YEAR_S = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """A version's try to become the champion.

    Attributes:
        number: How many tries the model has had, this one included.
        level: Largest p-value that passes.
    """

    number: int
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBudget:
    """What is left of a model's budget, and the tries against its present champion.

    Attributes:
        tries: Number of tries so far.
        left: Sum of the levels that may be spent, at the time `at`.
        at: Time of the last try (UTC); None before the first.
        champion: The version that the last try was against; "" if there was no champion.
        tried: The tries against it by version.
    """

    tries: int = 0
    left: float = FULL
    at: datetime | None = None
    champion: str = ""
    tried: Mapping[str, Try] = field(default_factory=dict)

    def level_for(self, versions: int, now: datetime) -> float:
        """The level of each of some versions that are judged in one call."""
        return _SHARE * self._left(now) / versions

    def offer(self, version: str, champion: str, level: float) -> Try:
        """The try that a version gets: its earlier one against this champion, or the next.

        The same comparison at the same level has the same outcome, so repeating it costs nothing.

        Args:
            version: The candidate.
            champion: The version that it would replace; "" if there is none.
            level: The level of a new try, from `level_for`.
        """
        if champion == self.champion and version in self.tried:
            return self.tried[version]
        return Try(number=self.tries + 1, level=level)

    def spend(self, offered: Try, version: str, champion: str, now: datetime) -> ErrorBudget:
        """The budget after a try that `offer` returned was made."""
        if offered.number <= self.tries:
            return self
        return ErrorBudget(
            tries=offered.number,
            left=self._left(now) - offered.level,
            # A clock that was set back must not refill the same days twice.
            at=now if self.at is None else max(now, self.at),
            champion=champion,
            tried={**(self.tried if champion == self.champion else {}), version: offered},
        )

    def _left(self, now: datetime) -> float:
        if self.at is None:
            return self.left
        years = max(0.0, (now - self.at).total_seconds() / _YEAR_S)
        return min(FULL, self.left + REFILL_A_YEAR * years)

    def to_json(self) -> str:
        """JSON for a tag of the registered model."""
        return json.dumps(
            {
                "tries": self.tries,
                "left": self.left,
                "at": None if self.at is None else self.at.isoformat(),
                "champion": self.champion,
                "tried": {name: [one.number, one.level] for name, one in self.tried.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ErrorBudget:
        """Read what `to_json` wrote.

        Raises:
            RegistryError: It is something else.
        """
        try:
            read = json.loads(text)
            return cls(
                tries=int(read["tries"]),
                left=min(FULL, float(read["left"])),
                at=None if read["at"] is None else datetime.fromisoformat(read["at"]),
                champion=str(read["champion"]),
                tried={
                    name: Try(number=int(number), level=float(level))
                    for name, (number, level) in read["tried"].items()
                },
            )
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise RegistryError(f"not a record of the gate's tries: {text!r}") from err
