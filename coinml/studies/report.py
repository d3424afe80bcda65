"""A study's results: one row per condition and head, power laws, and conclusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from coinml.evaluation.intervals import Estimate
from coinml.runtime.markdown import markdown_table
from coinml.studies.costs import Cost, Spread, speed_up
from coinml.studies.estimates import Difference
from coinml.studies.plans import Condition

if TYPE_CHECKING:
    from coinml.studies.power_law import PowerLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One condition with one head.

    Attributes:
        condition: The condition.
        head: Name of the head.
        fits: Number of trainings, one per seed.
        train_videos: Number of training videos.
        dim: Width of the head's input.
        fit_s: Seconds of a training, over the seeds.
        val: Accuracy on val, the mean over the seeds.
        test: Accuracy on test, likewise.
        difference: Test accuracy minus that of the reference with the same head; None for the
            reference.
        cost: What embedding takes under this condition, where that was measured.
    """

    condition: Condition
    head: str
    fits: int
    train_videos: int
    dim: int
    fit_s: Spread
    val: Estimate
    test: Estimate
    difference: Difference | None
    cost: Cost | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        gap = self.difference
        return {
            "condition": self.condition.name,
            "value": self.condition.value,
            "head": self.head,
            "fits": self.fits,
            "train_videos": self.train_videos,
            "dim": self.dim,
            "fit_s": self.fit_s.value,
            "fit_s_low": self.fit_s.low,
            "fit_s_high": self.fit_s.high,
            "val_accuracy": asdict(self.val),
            "test_accuracy": asdict(self.test),
            "difference": None if gap is None else asdict(gap.value),
            "p_value": None if gap is None else gap.p_value,
            "lost": None if gap is None else gap.lost,
            "gained": None if gap is None else gap.gained,
            "cost": None if self.cost is None else self.cost.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The error that a fitted learning curve predicts.

    Attributes:
        head: Name of the head.
        train_videos: Number of training videos.
        what: Why the error is predicted for this number.
        error: The predicted test error.
    """

    head: str
    train_videos: int
    what: str
    error: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReport:
    """A study's result.

    Attributes:
        study: Its name.
        dataset: The dataset's name.
        question: The question that it answers.
        axis: Label of the axis of the conditions' values.
        reference: Name of the condition that the others are compared with.
        head: The head of the conclusions: the best on val under the reference.
        rows: Conditions in their order, each with all heads.
        val_videos: Number of val videos.
        test_videos: Number of test videos that each row was measured on.
        laws: Fitted learning curve by head, in `data`.
        predictions: Errors that the learning curves predict.
        conclusions: The conclusions, as sentences.
        notes: Notes for the reader.
        experiment: Name of the MLflow experiment.
        run_id: The study's run, which contains the trials' runs, the table and the figure.
    """

    study: str
    dataset: str
    question: str
    axis: str
    reference: str
    head: str
    rows: tuple[Row, ...]
    val_videos: int
    test_videos: int
    laws: Mapping[str, PowerLaw]
    predictions: tuple[Prediction, ...]
    conclusions: tuple[str, ...]
    notes: tuple[str, ...] = ()
    experiment: str = ""
    run_id: str = ""

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads, in the order of the rows."""
        return tuple(dict.fromkeys(row.head for row in self.rows))

    def of(self, head: str) -> tuple[Row, ...]:
        """One head's rows."""
        return tuple(row for row in self.rows if row.head == head)

    def reference_row(self, head: str) -> Row:
        """One head's row of the reference."""
        return next(row for row in self.of(head) if row.condition.name == self.reference)

    def __str__(self) -> str:
        return " ".join(self.conclusions)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {
            "study": self.study,
            "dataset": self.dataset,
            "question": self.question,
            "reference": self.reference,
            "head": self.head,
            "val_videos": self.val_videos,
            "test_videos": self.test_videos,
            "conditions": [row.as_dict() for row in self.rows],
            "power_law": {head: law.as_dict() for head, law in self.laws.items()},
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "conclusions": list(self.conclusions),
            "notes": list(self.notes),
            "experiment": self.experiment,
            "run_id": self.run_id,
        }

    def table(self) -> pd.DataFrame:
        """One row per condition and head, with a column per number."""
        flat = []
        for row in self.rows:
            fields = row.as_dict()
            for name in ("val_accuracy", "test_accuracy", "difference"):
                estimate = fields.pop(name) or {}
                fields[name] = estimate.get("value")
                fields[f"{name}_low"] = estimate.get("low")
                fields[f"{name}_high"] = estimate.get("high")
            fields.update(fields.pop("cost") or {})
            flat.append(fields)
        return pd.DataFrame(flat)


HEADINGS = (
    "condition",
    "head",
    "training videos",
    "val accuracy",
    "test accuracy",
    "points over the reference",
    "p",
)
COST_HEADINGS = ("frames read", "decode s", "encode s", "clips/s", "times as fast")


def cells(report: StudyReport) -> tuple[list[str], list[list[str]]]:
    """The table as text: its columns, and the cells of each row."""
    priced = any(row.cost is not None for row in report.rows)
    rows = []
    for row in report.rows:
        gap = row.difference
        texts = [
            row.condition.name,
            row.head,
            str(row.train_videos),
            str(row.val),
            str(row.test),
            "reference" if gap is None else points(gap.value),
            "" if gap is None else f"{gap.p_value:.2g}",
        ]
        rows.append(texts + (_cost_cells(report, row) if priced else []))
    return [*HEADINGS, *(COST_HEADINGS if priced else ())], rows


def points(difference: Estimate) -> str:
    """A difference of accuracies in percentage points, with its interval."""
    value, low, high = (100 * n for n in (difference.value, difference.low, difference.high))
    said = f"; {difference.caveat}" if difference.caveat else ""
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}{said}]"


def markdown(report: StudyReport) -> str:
    """The report as Markdown, for an artifact or a run's description."""
    columns, rows = cells(report)
    lines: Sequence[str] = [
        f"**{report.question}**",
        "",
        *(f"- {sentence}" for sentence in report.conclusions),
        "",
        markdown_table(columns, rows),
        "",
        *report.notes,
    ]
    return "\n".join(lines)


def _cost_cells(report: StudyReport, row: Row) -> list[str]:
    reference = report.reference_row(row.head).cost
    if row.cost is None or reference is None:
        return [""] * len(COST_HEADINGS)
    ratio = speed_up(reference, row.cost)
    if row.condition.name == report.reference:
        speed = "reference"
    else:
        speed = str(ratio) if ratio.excludes_1 else f"not shown [{ratio.low:.3g}, {ratio.high:.3g}]"
    spreads = (row.cost.decode_s, row.cost.encode_s, row.cost.clips_per_s)
    return [f"{row.cost.frames:,}", *map(str, spreads), speed]
