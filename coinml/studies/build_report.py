"""From the results of all trials to a study's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coinml.data.records import Split
from coinml.errors import InvalidInputError
from coinml.runtime.cpus import cpu_count
from coinml.studies.conclusions import (
    conclude_conditions,
    conclude_data,
    conclude_dims,
    conclude_heads,
)
from coinml.studies.costs import ROUNDS, Cost, Spread
from coinml.studies.estimates import Right, accuracy, difference
from coinml.studies.plans import Condition, StudyPlan
from coinml.studies.power_law import PowerLaw, fit_power_law
from coinml.studies.report import Prediction, Row, StudyReport
from coinml.studies.trials import TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportExtras:
    """What a study's report has besides the heads' answers.

    Attributes:
        costs: What embedding takes, by condition.
        predicted_sizes: In `data`, numbers of training videos to predict the error for, and why
            these.
        notes: Notes for the reader.
    """

    costs: Sequence[Cost] = ()
    predicted_sizes: Mapping[int, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def build_report(
    plan: StudyPlan,
    conditions: Sequence[Condition],
    fits: Sequence[TrialResult],
    *,
    dataset: str,
    extras: ReportExtras | None = None,
) -> StudyReport:
    """Compute intervals, paired tests and conclusions from the trials' results.

    Args:
        plan: What was compared.
        conditions: In order; each has results.
        fits: The results of all heads, seeds and conditions.
        dataset: The dataset's name.
        extras: What the report has besides.
    """
    extras = extras or ReportExtras()
    heads = tuple(dict.fromkeys(fit.head for fit in fits))
    priced = {cost.condition: cost for cost in extras.costs}
    rows = tuple(
        _row(plan, condition, head, fits, priced.get(condition.name))
        for condition in conditions
        for head in heads
    )
    chosen = _chosen(plan, rows, fits)
    laws: dict[str, PowerLaw] = {}
    predictions: tuple[Prediction, ...] = ()
    remarks = list(extras.notes)
    if groups := fits[0].groups["test"]:
        remarks.append(
            f"Intervals and tests are over the groups (--group) of the test videos: "
            f"{len(set(groups)):,}."
        )
    if extras.costs:
        remarks.append(_timing(extras.costs[0]))
    if plan.study == "data":
        try:
            laws = {head: _law(conditions, head, fits) for head in heads}
        except InvalidInputError as err:
            remarks.append(f"No learning curve is fitted: {err}.")
        predictions = tuple(
            Prediction(head=head, train_videos=n, what=what, error=law.predict(n))
            for head, law in laws.items()
            for n, what in extras.predicted_sizes.items()
        )
    return StudyReport(
        study=plan.study,
        dataset=dataset,
        question=plan.question,
        axis=plan.axis,
        reference=plan.reference,
        head=chosen.head,
        rows=rows,
        val_videos=len(fits[0].right["val"]),
        test_videos=len(fits[0].right["test"]),
        laws=laws,
        predictions=predictions,
        conclusions=tuple(_conclude(plan, chosen, rows, fits, predictions)),
        notes=tuple(remarks),
    )


def _chosen(plan: StudyPlan, rows: Sequence[Row], fits: Sequence[TrialResult]) -> Row:
    """The reference's row of the head that is best on val; of equal ones, that with less loss."""

    def loss(head: str) -> float:
        own = [f for f in fits if (f.condition, f.head) == (plan.reference, head)]
        return float(np.mean([fit.evaluations["val"].loss for fit in own]))

    references = [row for row in rows if row.condition.name == plan.reference]
    return max(references, key=lambda row: (row.val.value, -loss(row.head)))


def _row(
    plan: StudyPlan, condition: Condition, head: str, fits: Sequence[TrialResult], cost: Cost | None
) -> Row:
    own = [fit for fit in fits if (fit.condition, fit.head) == (condition.name, head)]
    groups = own[0].groups
    is_reference = condition.name == plan.reference
    return Row(
        condition=condition,
        head=head,
        fits=len(own),
        train_videos=own[0].train_videos,
        dim=own[0].dim,
        fit_s=Spread.of([fit.fit_s for fit in own]),
        val=accuracy(_right(fits, condition.name, head, "val"), groups["val"]),
        test=accuracy(_right(fits, condition.name, head, "test"), groups["test"]),
        difference=None
        if is_reference
        else difference(
            _right(fits, condition.name, head, "test"),
            _right(fits, plan.reference, head, "test"),
            groups["test"],
        ),
        cost=cost,
    )


def _timing(cost: Cost) -> str:
    return (
        f"Times are medians of {len(cost.rounds)} rounds on {cost.videos} videos, with the least "
        "and the greatest; the conditions took turns in each. The machine's load average was "
        f"{cost.load:.1f} on {cpu_count()} CPUs. A speed-up is claimed if each of {ROUNDS} rounds "
        "or more shows it."
    )


def _conclude(
    plan: StudyPlan,
    chosen: Row,
    rows: Sequence[Row],
    fits: Sequence[TrialResult],
    predictions: Sequence[Prediction],
) -> list[str]:
    own, groups = [row for row in rows if row.head == chosen.head], fits[0].groups["test"]
    if plan.study == "dims":
        return conclude_dims(own, chosen)
    if plan.study != "data":
        return conclude_conditions(plan.study, own, chosen)
    about = [prediction for prediction in predictions if prediction.head == chosen.head]
    smaller = [row for row in own if row.train_videos < chosen.train_videos]
    # From the smallest subset to all videos, and from about half to all.
    halves = [row for row in smaller if row.train_videos <= chosen.train_videos / 2]
    steps = {row.condition.name: row for row in (*smaller[:1], *halves[-1:])}
    gaps = [
        (
            row,
            difference(
                _right(fits, plan.reference, chosen.head, "test"),
                _right(fits, row.condition.name, chosen.head, "test"),
                groups,
            ),
        )
        for row in steps.values()
    ]
    sentences = conclude_data(chosen, gaps, about)
    heads = tuple(dict.fromkeys(row.head for row in rows))
    for other in heads[1:]:
        first, second = (_right(fits, plan.reference, head, "test") for head in (heads[0], other))
        gap = difference(first, second, groups)
        sentences.append(conclude_heads(heads[0], other, gap, first.shape[1]))
    return sentences


def _law(conditions: Sequence[Condition], head: str, fits: Sequence[TrialResult]) -> PowerLaw:
    answers = [_right(fits, condition.name, head, "test") for condition in conditions]
    seeds = max(len(right) for right in answers)
    sizes = [
        next(f.train_videos for f in fits if (f.condition, f.head) == (condition.name, head))
        for condition in conditions
    ]
    return fit_power_law(
        sizes,
        1 - np.stack([np.broadcast_to(r, (seeds, r.shape[1])) for r in answers]),
        groups=fits[0].groups["test"],
    )


def _right(fits: Sequence[TrialResult], condition: str, head: str, split: Split) -> Right:
    """Shape (seeds, videos)."""
    own = [fit for fit in fits if (fit.condition, fit.head) == (condition, head)]
    return np.stack([fit.right[split] for fit in sorted(own, key=lambda fit: fit.seed)])
