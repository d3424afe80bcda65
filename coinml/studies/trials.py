"""One trial: a head trained under one condition and measured on val and test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples
from coinml.evaluation.evaluate import Evaluation, evaluate
from coinml.evaluation.predictions import predictions_table
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import head_kind
from coinml.heads.protocol import Head, head_input
from coinml.studies.plans import Condition

Parts = Mapping[Split, Samples]
"""The samples of each split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOptions:
    """What is trained under each condition.

    Attributes:
        heads: Names of the heads.
        seeds: Trainings of each head that draws random numbers.
        official_sizes: Number of videos of each split, collected or not.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
    """

    heads: Sequence[str]
    seeds: int
    official_sizes: Mapping[Split, int]
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """A trained head's answers under one condition.

    Attributes:
        condition: Name of the condition.
        head: Name of the head.
        seed: Of the head, and of the subset in `data`.
        train_videos: Number of training videos.
        dim: Width of the head's input.
        fit_s: Seconds that training took.
        right: Whether each val and test video was classified correctly, in the order of the ids.
        groups: Each video's group in val and test, in the same order; None where videos are
            independent.
        evaluations: The metrics of val and test.
        predictions: `video_id, split, label, predicted, score` of val and test.
    """

    condition: str
    head: str
    seed: int
    train_videos: int
    dim: int
    fit_s: float
    right: Mapping[Split, npt.NDArray[np.bool_]]
    groups: Mapping[Split, Sequence[str] | None]
    evaluations: Mapping[Split, Evaluation]
    predictions: pd.DataFrame


def run_trial(
    condition: str, head: str, parts: Parts, *, seed: int, options: TrialOptions
) -> TrialResult:
    """Train a head on `train`, choose its setting on `val`, and measure it on `val` and `test`."""
    fitted, seconds = _fit(head, parts, seed, options)
    return _measure(condition, head, fitted, parts, seed=seed, fit_s=seconds, options=options)


def run_trials(
    conditions: Sequence[tuple[Condition, Parts]], options: TrialOptions
) -> Iterator[TrialResult]:
    """Train each head on each condition's videos, for each seed that matters to the head."""
    for condition, parts in conditions:
        for head in options.heads:
            for seed in seeds_of(head, options.seeds):
                yield run_trial(condition.name, head, parts, seed=seed, options=options)


def run_trained_once(
    versions: Sequence[tuple[Condition, Parts]], options: TrialOptions
) -> Iterator[TrialResult]:
    """Train each head on the last version's videos, and measure it on every version's."""
    _, own = versions[-1]
    for head in options.heads:
        for seed in seeds_of(head, options.seeds):
            fitted, seconds = _fit(head, own, seed, options)
            for condition, parts in versions:
                yield _measure(
                    condition.name, head, fitted, parts, seed=seed, fit_s=seconds, options=options
                )


def seeds_of(head: str, seeds: int) -> range:
    """The seeds to train a head with: one where all seeds give the same head."""
    return range(seeds if head_kind(head).draws_random else 1)


def _fit(head: str, parts: Parts, seed: int, options: TrialOptions) -> tuple[Head, float]:
    """A trained head, and how many seconds that took."""
    start = time.perf_counter()
    # A study compares answers, which calibration does not change.
    fitted = fit_head(
        head,
        parts["train"],
        parts["val"],
        seed=seed,
        device=options.device,
        calibrated=False,
    )
    return fitted, time.perf_counter() - start


def _measure(
    condition: str,
    head: str,
    fitted: Head,
    parts: Parts,
    *,
    seed: int,
    fit_s: float,
    options: TrialOptions,
) -> TrialResult:
    right, evaluations, tables = {}, {}, []
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        samples = parts[split]
        proba = fitted.predict_proba(head_input(fitted, samples))
        right[split] = proba.argmax(axis=1) == samples.y
        official = max(options.official_sizes[split], len(samples))
        evaluations[split] = evaluate(
            samples.y,
            proba,
            samples.classes,
            official_size=official,
            groups=samples.clusters,
        )
        tables.append(predictions_table(split, samples, proba, fitted.classes))
    return TrialResult(
        condition=condition,
        head=head,
        seed=seed,
        train_videos=len(parts["train"]),
        dim=parts["train"].x.shape[1],
        fit_s=fit_s,
        right=right,
        groups={split: parts[split].clusters for split in splits},
        evaluations=evaluations,
        predictions=pd.concat(tables, ignore_index=True),
    )
