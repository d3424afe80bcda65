"""Cross-validation of a head: every video is tested once a repeat, by a head that never saw it.

A fold's head chooses its settings, its epoch and its calibration on a val side that is cut from the
fold's training videos. Videos of one group, and copies of one video, are in one fold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.splits import VAL_FRACTION
from coinml.embedding_sets.table import Samples, split_samples
from coinml.errors import InvalidInputError
from coinml.evaluation.across_folds import accuracy_over_folds
from coinml.evaluation.evaluate import evaluate
from coinml.evaluation.intervals import Estimate
from coinml.evaluation.leaks import find_leaks
from coinml.evaluation.predictions import predictions_table
from coinml.heads.fit_head import fit_head
from coinml.heads.protocol import Head, head_input
from coinml.training.sweep import sweep
from coinml.training.training_data import TrainingData

Rows = npt.NDArray[np.intp]

DEFAULT_FOLDS, DEFAULT_REPEATS = 5, 3

_FEWEST_FOLDS = 3
"""With two, a head is trained on half of the groups, and of few groups none are left for val."""

SMALL_TEST = 100
"""Test sides with fewer independent videos get a cross-validation by default.

With 100 test videos and an accuracy of 0.8, Wilson's interval is 0.71 to 0.87: eight points to
either side are as much as most changes of data or head bring. A test side of 15 % is that large
from 667 videos on; below it, five folds test each video and cost less than a minute.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """What heads of one kind answer for videos that they were not trained on.

    Attributes:
        folds: Folds of a repeat.
        repeats: Number of cuts into folds.
        videos: Number of videos (or segments).
        groups: Number of independent groups of them.
        accuracy: Mean over the folds.
        metrics: Means over the repeats of what is measured on all videos at once: `loss`,
            `f1_macro`, `calibration_error`, `majority_rate` and, with more than five classes,
            `top5_accuracy`.
        by_fold: One row per fold: `repeat, fold, train, val, test, right, accuracy` and the
            settings that the head chose.
        predictions: As `predictions_table` returns them, with `repeat` and `fold`; `split` is that
            of the fixed cut.
    """

    folds: int
    repeats: int
    videos: int
    groups: int
    accuracy: Estimate
    metrics: Mapping[str, float]
    by_fold: pd.DataFrame
    predictions: pd.DataFrame


def folds_wanted(data: TrainingData, asked: int | None) -> int:
    """Number of folds: what is asked for, or the default for small datasets without a test set.

    Args:
        data: The training data.
        asked: Folds that are asked for; None for the default.
    """
    if asked is not None:
        return asked
    if data.dataset.official_split:
        return 0
    tested = data.table[data.table["split"] == "test"]
    column = "group" if "group" in tested else "video_id"
    return DEFAULT_FOLDS if tested[column].nunique() < SMALL_TEST else 0


def most_folds(data: TrainingData, folds: int) -> int:
    """As many folds as the data allows, `folds` at most; 0 if it allows no cross-validation.

    Args:
        data: The training data.
        folds: Folds that a default names.
    """
    samples, _ = _pool(data)
    groups = _groups(samples, data)
    allowed = min(folds, len(np.unique(groups)), int(np.bincount(samples.y).max()))
    if allowed < _FEWEST_FOLDS:
        return 0
    return allowed


def cross_validate(
    head: str,
    data: TrainingData,
    *,
    folds: int = DEFAULT_FOLDS,
    repeats: int = DEFAULT_REPEATS,
    trials: int = 0,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_step: Callable[[], None] = lambda: None,
) -> CrossValidation:
    """Cross-validate a head, grouped, stratified by class and repeated.

    Of a dataset with an official test set, the training and val videos are used; else all are.

    Args:
        head: One of `heads.kinds.HEADS`.
        data: What it is trained and measured on.
        folds: Folds of a repeat, 2 or more.
        repeats: Number of cuts into folds.
        trials: Settings that a sweep tries in each fold; 0 for the head's own search.
        options: Options of the head's trainer that every fold has; a sweep tries the others.
        seed: Seed of the cuts and of the heads.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        on_step: Called after each epoch or setting; an exception that it raises ends it.

    Raises:
        InvalidInputError: Fewer groups than folds, or a fold whose training side has fewer than two
            classes.
    """
    samples, splits = _pool(data)
    groups = _groups(samples, data)
    n_groups = len(np.unique(groups))
    if n_groups < folds or folds < 2:
        raise InvalidInputError(
            f"cv {folds}: 2 to {n_groups} folds are allowed, as there are {len(samples):,} "
            f"{samples.things} in {n_groups:,} independent groups"
        )
    rows, tables, measured = [], [], []
    for repeat in range(repeats):
        proba = np.zeros((len(samples), len(samples.classes)), dtype=np.float32)
        for fold, (train, val, test) in enumerate(_cuts(samples, groups, folds, seed + repeat)):
            fitted = _fit(
                head,
                _trainable(samples, train, f"repeat {repeat}, fold {fold}"),
                samples.take(val),
                trials=trials,
                options=options or {},
                seed=seed,
                device=device,
                on_step=on_step,
            )
            part = samples.take(test)
            proba[test] = fitted.predict_proba(head_input(fitted, part))
            right = int((proba[test].argmax(axis=1) == part.y).sum())
            sizes = {"train": len(train), "val": len(val), "test": len(test)}
            rows.append(
                {"repeat": repeat, "fold": fold, **sizes, "right": right}
                | {"accuracy": right / len(test)}
                | {name: str(value) for name, value in fitted.settings.items()}
            )
            told = predictions_table("test", part, proba[test], samples.classes)
            tables.append(told.assign(split=splits[test], repeat=repeat, fold=fold))
        measured.append(evaluate(samples.y, proba, samples.classes))
    by_fold = pd.DataFrame(rows)
    top5 = [one.top5_accuracy.value for one in measured if one.top5_accuracy is not None]
    return CrossValidation(
        folds=folds,
        repeats=repeats,
        videos=len(samples),
        groups=n_groups,
        accuracy=accuracy_over_folds(
            by_fold["right"].to_numpy(), by_fold["test"].to_numpy(), groups=n_groups, folds=folds
        ),
        metrics={
            "loss": float(np.mean([one.loss for one in measured])),
            "f1_macro": float(np.mean([one.f1_macro.value for one in measured])),
            "calibration_error": float(np.mean([one.calibration_error for one in measured])),
            "majority_rate": measured[0].majority_rate,
            **({"top5_accuracy": float(np.mean(top5))} if top5 else {}),
        },
        by_fold=by_fold,
        predictions=pd.concat(tables, ignore_index=True),
    )


def _pool(data: TrainingData) -> tuple[Samples, npt.NDArray[np.object_]]:
    """The samples that are cut into folds, and their split in the fixed cut."""
    table = data.table
    if data.dataset.official_split:
        table = table[table["split"] != "test"]
    cut = table.assign(split="train")
    samples = split_samples(cut, data.classes, clips=data.clips, splits=("train",))["train"]
    return samples, table["split"].to_numpy(dtype=object)


def _groups(samples: Samples, data: TrainingData) -> npt.NDArray[np.int64]:
    """The group of each sample: its own, joined with those of copies of its video."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    videos = samples.groups or samples.ids
    owners = [f"group {one}" for one in samples.clusters or samples.ids]
    hashes = [f"file {data.sha256s[one]}" if one in data.sha256s else "" for one in videos]
    named = [f"video {one}" for one in videos]
    leaks = find_leaks(data.table, data.sha256s)[["video_id", "twin_id"]].to_numpy()
    pairs = [*zip(named, owners, strict=True), *zip(named, hashes, strict=True)]
    pairs += [(f"video {one}", f"video {other}") for one, other in leaks]
    known = {name: place for place, name in enumerate(sorted({n for p in pairs for n in p if n}))}
    edges = np.array([(known[one], known[other]) for one, other in pairs if other])
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(len(known), len(known)))
    component = connected_components(graph, directed=False)[1]
    return np.array([component[known[name]] for name in named], dtype=np.int64)


def _cuts(
    samples: Samples, groups: npt.NDArray[np.int64], folds: int, seed: int
) -> Iterator[tuple[Rows, Rows, Rows]]:
    """Train, val and test rows of each fold."""
    for rest, test in _stratified(samples.y, groups, folds, seed):
        if not len(test):
            # Few groups of very unequal size can leave a fold without any.
            continue
        y, of_rest = samples.y[rest], groups[rest]
        # scikit-learn needs a class with as many videos as there are parts.
        parts = min(round(1 / VAL_FRACTION), len(np.unique(of_rest)), int(np.bincount(y).max()))
        train, val = _stratified(y, of_rest, max(parts, 2), seed)[0]
        yield rest[train], rest[val], test


def _stratified(
    y: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], folds: int, seed: int
) -> list[tuple[Rows, Rows]]:
    import warnings

    from sklearn.model_selection import StratifiedGroupKFold

    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer videos than folds is in some of them alone, as it must be.
        warnings.filterwarnings("ignore", message="The least populated class")
        try:
            return list(cut.split(y, y, groups))
        except ValueError as err:
            raise InvalidInputError(
                f"cv {folds}: no class has {folds} videos, so no fold would have all classes"
            ) from err


def _trainable(samples: Samples, train: Rows, where: str) -> Samples:
    part = samples.take(train)
    found = len(set(part.y.tolist()))
    if found < 2:
        raise InvalidInputError(
            f"cv: {where}: its {len(part)} training {part.things} are of {found} class; two are "
            "needed; take fewer folds, or more videos"
        )
    return part


def _fit(
    head: str,
    train: Samples,
    val: Samples,
    *,
    trials: int,
    options: Mapping[str, Any],
    seed: int,
    device: str,
    on_step: Callable[[], None],
) -> Head:
    if trials:
        with tempfile.TemporaryDirectory() as folder:
            storage = Path(folder) / "sweep.db"
            found = sweep(
                head,
                train,
                val,
                trials=trials,
                storage=storage,
                name="fold",
                fixed=options,
                seed=seed,
                device=device,
                on_trial=lambda _done: on_step(),
            )
            options = found.options
    return fit_head(
        head,
        train,
        val,
        options=options,
        seed=seed,
        device=device,
        on_step=lambda _numbers: on_step(),
    )
