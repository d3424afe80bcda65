"""How a head describes the options that a sweep tries, without importing the sweep's library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Trial(Protocol):
    """The part of `optuna.Trial` that search spaces use: it draws one value per name."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from `low` to `high`, on a logarithmic scale with `log`."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number from `low` to `high`, on a logarithmic scale with `log`."""


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The options of a head that a sweep tries.

    Attributes:
        draw: Draws values from a trial and returns options of the head's trainer.
        defaults: The values, by the names that `draw` uses, that give the trainer's defaults; the
            first trial of a sweep has them.
        within: By the name of a choice that `draw` uses, the option that lists its values: where
            that is set by hand, only its values are drawn.
    """

    draw: Callable[[Trial], dict[str, Any]]
    defaults: Mapping[str, Any]
    within: Mapping[str, str] = field(default_factory=dict)
