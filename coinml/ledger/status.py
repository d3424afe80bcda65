"""Counting a dataset's videos: downloaded, lost, still possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from coinml.faults.classification import POLICY, Fault
from coinml.ledger.records import DOWNLOADED, PENDING, Counts, Status

Group = tuple[str, str, str, bool, bool, int]
"""Published subset, task class, state, is due, has a next attempt, number of videos."""

# Videos with these faults count as lost until they are due again.
_LOST = frozenset({str(Fault.GONE), str(Fault.RESTRICTED), str(Fault.UNSUPPORTED)})


def summarise(dataset: str, groups: Sequence[Group], *, rate_per_hour: float | None) -> Status:
    """Sum up the counts of a grouped query.

    Args:
        dataset: Name of the dataset.
        groups: One entry per combination that occurs.
        rate_per_hour: Allowed videos per hour; None: unknown.
    """
    whole: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    by_split: dict[str, Counter[str]] = {}
    by_class: dict[str, Counter[str]] = {}
    for subset, label, state, due, later, count in groups:
        kinds = {"total": count}
        if state in (DOWNLOADED, PENDING):
            kinds[state] = count
        else:
            faults[state] += count
            if not due and (state in _LOST or not later):
                kinds["lost"] = count
        if due:
            kinds["due"] = count
        for counter in (
            whole,
            by_split.setdefault(subset, Counter()),
            by_class.setdefault(label, Counter()),
        ):
            counter.update(kinds)
    possible = whole["total"] - whole["downloaded"] - whole["lost"]
    return Status(
        dataset=dataset,
        total=whole["total"],
        downloaded=whole["downloaded"],
        pending=whole["pending"],
        faults={str(fault): faults[fault] for fault in POLICY if faults[fault]},
        due=whole["due"],
        by_split={name: Counts(**by_split[name]) for name in sorted(by_split)},
        by_class={name: Counts(**by_class[name]) for name in sorted(by_class)},
        eta_hours=_eta_hours(possible, rate_per_hour),
    )


def _eta_hours(possible: int, rate_per_hour: float | None) -> float | None:
    if possible == 0:
        return 0.0
    return round(possible / rate_per_hour, 2) if rate_per_hour else None
