"""What training one head brought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """A trained head, or an earlier one with the same recipe.

    Attributes:
        head: One of `heads.kinds.HEADS`.
        run_id: Its MLflow run.
        model: Name of the registered model.
        version: Of the registered model.
        metrics: Final numbers of val and test, by MLflow's names.
        reused: Whether an earlier run with the same recipe was taken.
        classes_without: Classes without an embedded video, by split.
        scarce_classes: Classes with too few training videos to learn much of them.
        contradictions: Equal files with different labels, a text each.
    """

    head: str
    run_id: str
    model: str
    version: int
    metrics: Mapping[str, float]
    reused: bool
    classes_without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scarce_classes: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)
