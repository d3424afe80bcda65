"""Compare two runs on the same videos: a paired test, and the videos that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from coinml.data.records import SPLITS
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import Estimate
from coinml.evaluation.paired import Comparison, compare
from coinml.runtime.settings import YOUTUBE
from coinml.selection import MINI
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog

if TYPE_CHECKING:
    from coinml.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two runs compared on one split.

    Attributes:
        run_a: The first run's id; `run_b` the second's.
        head_a: The first run's head; `head_b` the second's. The run id is added if both are equal.
        split: The split compared on.
        result: The statistics, and the videos on which exactly one of the runs is right.
    """

    run_a: str
    run_b: str
    head_a: str
    head_b: str
    split: str
    result: Comparison

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        result = self.result
        return {
            "run_a": self.run_a,
            "run_b": self.run_b,
            "head_a": self.head_a,
            "head_b": self.head_b,
            "split": self.split,
            result.things: result.n,
            "groups": result.groups,
            "accuracy_a": asdict(result.accuracy_a),
            "accuracy_b": asdict(result.accuracy_b),
            "difference": asdict(result.difference),
            "only_a_right": result.mcnemar.b,
            "only_b_right": result.mcnemar.c,
            "mcnemar_p": result.mcnemar.p_value,
            "gains_of_groups": {str(gain): n for gain, n in result.mcnemar.gains.items()},
            "discordant": result.discordant.to_dict(orient="records"),
            "per_class": result.per_class.to_dict(orient="records"),
        }

    def __str__(self) -> str:
        result = self.result
        better = self.head_b if result.difference.value > 0 else self.head_a
        verdict = (
            f"{better} is better"
            if result.mcnemar.p_value < 0.05
            else f"no difference that these {result.things} could show"
        )
        return (
            f"{self.head_a} {result.accuracy_a}, {self.head_b} {result.accuracy_b} on the same "
            f"{result.counted(self.split)}; {self.head_b} - {self.head_a} = "
            f"{result.difference}; {result.tested}: {verdict}"
        )


def compare_runs(
    store: MlflowStore,
    run_a: str,
    run_b: str,
    *,
    split: str = "test",
    ledger: Ledger | None = None,
    record: bool = False,
) -> RunComparison:
    """Compare two runs on the videos of a split that both have predictions for.

    Args:
        store: Where the runs are.
        run_a: An MLflow run id.
        run_b: Another.
        split: "val", "test", or "train" to compare how well the heads fit their training data.
        ledger: Adds the columns `title` and `link` to the discordant videos, if known.
        record: Write the comparison to the second run: figures, tables of the videos and classes
            that differ, the difference and its interval as metrics, and the tags
            `compared_with`, `compared_on` and `mcnemar_p`.

    Raises:
        InvalidInputError: No such run or split, or no video in common.
    """
    if split not in SPLITS:
        raise InvalidInputError(f"split {split!r}: one of {', '.join(SPLITS)} is allowed")
    runs = [store.read_run(run_id) for run_id in (run_a, run_b)]
    targets = [run.data.tags.get("target", "task") for run in runs]
    if targets[0] != targets[1]:
        raise InvalidInputError(
            f"run {run_a} tells {targets[0]}s apart and run {run_b} {targets[1]}s: "
            "nothing to compare"
        )
    heads, tables = [], []
    for run_id, run in zip((run_a, run_b), runs, strict=True):
        heads.append(run.data.tags.get("head", run_id[:8]))
        tables.append(_of(store.read_table(run_id, "predictions"), split))
    if heads[0] == heads[1]:
        heads = [f"{head} {run_id[:8]}" for head, run_id in zip(heads, (run_a, run_b), strict=True)]
    result = compare(tables[0], tables[1])
    if ledger is not None:
        discordant = _described(result.discordant, runs[1].data.tags.get("dataset", ""), ledger)
        result = replace(result, discordant=discordant)
    found = RunComparison(
        run_a=run_a,
        run_b=run_b,
        head_a=heads[0],
        head_b=heads[1],
        split=split,
        result=result,
    )
    before = tuple(runs[1].data.tags.get(tag) for tag in ("compared_with", "compared_on"))
    if record and before != (run_a, split):
        _record(store, found, [own_metrics(run.data.metrics) for run in runs])
    return found


def _record(
    store: MlflowStore, found: RunComparison, metrics: Sequence[Mapping[str, float]]
) -> None:
    from coinml.figures.comparison import class_differences, comparison

    log = RunLog(store.client(), found.run_b)
    figure = comparison(
        (found.head_a, found.head_b),
        [_estimates(numbers, found.split) for numbers in metrics],
        majority_rate=metrics[0][f"{found.split}_majority_rate"],
        title=f"{found.head_b} and {found.head_a}, {found.split}",
        paired=found.result,
    )
    # A comparison on another split does not overwrite the one on test.
    suffix = "" if found.split == "test" else f"_{found.split}"
    log.figure(f"comparison{suffix}", figure)
    result = found.result
    log.figure(
        f"class_differences{suffix}",
        class_differences(
            result.per_class,
            (found.head_a, found.head_b),
            title=f"By class, {found.split}",
            things=result.things,
        ),
    )
    log.table(f"discordant{suffix}", result.discordant)
    log.table(f"class_differences{suffix}", result.per_class)
    difference = result.difference
    log.metrics(
        {
            f"{found.split}_difference": difference.value,
            f"{found.split}_difference_low": difference.low,
            f"{found.split}_difference_high": difference.high,
            f"{found.split}_mcnemar_p": result.mcnemar.p_value,
        }
    )
    # Written last, so that a run with these tags has all of the above.
    log.tags(
        {
            "mcnemar_p": result.mcnemar.p_value,
            "compared_on": found.split,
            "compared_with": found.run_a,
        }
    )


def _described(discordant: pd.DataFrame, dataset: str, ledger: Ledger) -> pd.DataFrame:
    """Add the columns `title` and `link` to the discordant videos."""
    found = {row.video_id: row for row in ledger.rows(dataset)}
    # The id of a segment is `<video id>#<n>`.
    rows = {
        one: found[video_id]
        for one in discordant["video_id"]
        if (video_id := one if one in found else one.rpartition("#")[0]) in found
    }

    def link(video_id: str) -> str | None:
        row = rows.get(video_id)
        if row is None:
            return None
        # Drawn videos and folder datasets exist only as local files.
        at_home = dataset == MINI or row.origin == "in_place"
        return row.path if at_home else YOUTUBE.format(id=row.video_id)

    ids = discordant["video_id"].tolist()
    titles = [rows[video_id].title if video_id in rows else None for video_id in ids]
    # dtype object, because JSON has None (null) but not NaN.
    return discordant.assign(
        title=pd.Series(titles, dtype=object),
        link=pd.Series([link(video_id) for video_id in ids], dtype=object),
    )


def _estimates(metrics: Mapping[str, float], split: str) -> dict[str, Estimate]:
    return {
        name: Estimate(
            value=metrics[f"{split}_{name}"],
            low=metrics[f"{split}_{name}_low"],
            high=metrics[f"{split}_{name}_high"],
        )
        for name in ("accuracy", "accuracy_missing_wrong", "f1_macro", "top5_accuracy")
        # Where there are five classes or fewer, there is no top-5.
        if f"{split}_{name}" in metrics
    }


def _of(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[table["split"] == split]
