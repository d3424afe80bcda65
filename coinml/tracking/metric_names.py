"""What coinml's metrics are called in MLflow, which makes a section of a page of each group.

| coinml | MLflow |
| --- | --- |
| `val_loss` of an epoch | `epoch/val_loss` |
| `test_accuracy` | `test/accuracy` |
| `test_accuracy_low` | `test_interval/accuracy_low` |
| `test_difference`, `test_mcnemar_p` | `versus/test_difference`, `versus/test_mcnemar_p` |
| `leaks` | `warnings/leaks` |

Pages show the groups in the order of their names. Runs of an earlier coinml have coinml's names.
"""

from __future__ import annotations

from collections.abc import Mapping

EPOCH, CONDITION, STEP = "epoch", "condition", "step"
"""Groups of curves: by epoch of a training, condition of a study, step of a pre-training."""

PRIMARY = "val/accuracy"
"""The metric that decides between heads."""

_VERSUS = "versus"
_FIXED = {
    "leaks": "warnings/leaks",
    "leaks_dropped": "warnings/leaks_dropped",
    "contradictions": "warnings/contradictions",
    "fit_s": "time/fit_s",
}
_SPLITS = ("train", "val", "test", "cv")
_FIRST_WORDS = (*_SPLITS, "best", "trials", "audit")
_BOUND = ("_low", "_high")
_PAIRED = ("difference", "mcnemar")
_INTERVAL = "_interval"


def logged_name(name: str) -> str:
    """MLflow's name of a final metric."""
    first, _, rest = name.partition("_")
    if name in _FIXED:
        return _FIXED[name]
    if first not in _FIRST_WORDS or not rest:
        return name
    if rest.startswith(_PAIRED):
        return f"{_VERSUS}/{name}"
    bound = first in _SPLITS and rest.endswith(_BOUND)
    return f"{first}{_INTERVAL if bound else ''}/{rest}"


def own_metrics(logged: Mapping[str, float]) -> dict[str, float]:
    """A run's final metrics by coinml's names; those of curves are left out."""
    return {_own_name(name): value for name, value in logged.items() if curve_name(name) is None}


def curve_name(logged: str) -> str | None:
    """Coinml's name of a metric that has a value at each epoch, condition or step, else None."""
    group, slash, name = logged.partition("/")
    return name if slash and group in (EPOCH, CONDITION, STEP) else None


def _own_name(logged: str) -> str:
    group, slash, rest = logged.partition("/")
    if not slash:
        return logged
    if group == _VERSUS or logged in _FIXED.values():
        return rest
    return f"{group.removesuffix(_INTERVAL)}_{rest}"
