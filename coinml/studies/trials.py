"""One head trained under one condition, and what it answers."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A trained head's answers under one condition.

    Attributes:
        condition: Its name.
        head: Which head.
        seed: Of the head, and of the subset in `data`.
        train_videos: Number of videos that it learnt from.
        dim: Width of what it was shown.
        fit_s: Seconds that training took.
        right: Whether each val and test video was answered rightly, in the order of the ids.
        evaluations: The usual numbers of val and test.
        predictions: `video_id, split, label, predicted, score` of val and test.
    """

    condition: str
    head: str
    seed: int
    train_videos: int
    dim: int
    fit_s: float
    right: Mapping[Split, npt.NDArray[np.bool_]]
    evaluations: Mapping[Split, Evaluation]
    predictions: pd.DataFrame


def fit_and_answer(
    condition: str,
    head: str,
    parts: Mapping[Split, Samples],
    *,
    seed: int,
    device: str,
    official: Mapping[Split, int],
) -> Fit:
    """Train a head on `train`, chosen by `val`, and let it answer `val` and `test`.

    Args:
        condition: Name of the condition that the parts are of.
        head: Which head.
        parts: Training, val and test videos.
        seed: Of the head.
        device: For heads that use one.
        official: Size of each split with the videos that are lost.
    """
    start = time.perf_counter()
    fitted = fit_head(head, parts["train"], parts["val"], seed=seed, device=device)
    seconds = time.perf_counter() - start
    return answered(condition, head, fitted, parts, seed=seed, fit_s=seconds, official=official)


def fit_conditions(
    conditions: Sequence[tuple[Condition, Mapping[Split, Samples]]],
    *,
    heads: Sequence[str],
    seeds: int,
    device: str,
    official: Mapping[Split, int],
) -> Iterator[Fit]:
    """Train each head on each condition's videos, for each seed that matters to the head."""
    for condition, parts in conditions:
        for head in heads:
            for seed in seeds_of(head, seeds):
                yield fit_and_answer(
                    condition.name, head, parts, seed=seed, device=device, official=official
                )


def fit_once(
    versions: Sequence[tuple[Condition, Mapping[Split, Samples]]],
    *,
    heads: Sequence[str],
    seeds: int,
    device: str,
    official: Mapping[Split, int],
) -> Iterator[Fit]:
    """Train each head on the last version's videos, and have it answer every version's."""
    _, own = versions[-1]
    for head in heads:
        for seed in seeds_of(head, seeds):
            start = time.perf_counter()
            fitted = fit_head(head, own["train"], own["val"], seed=seed, device=device)
            seconds = time.perf_counter() - start
            for condition, parts in versions:
                yield answered(
                    condition.name,
                    head,
                    fitted,
                    parts,
                    seed=seed,
                    fit_s=seconds,
                    official=official,
                )


def answered(
    condition: str,
    head: str,
    fitted: Head,
    parts: Mapping[Split, Samples],
    *,
    seed: int,
    fit_s: float,
    official: Mapping[Split, int],
) -> Fit:
    """What a trained head says to val and test; arguments as in `fit_and_answer`."""
    right, evaluations, tables = {}, {}, []
    splits: tuple[Split, ...] = ("val", "test")
    for split in splits:
        samples = parts[split]
        proba = fitted.predict_proba(head_input(fitted, samples))
        right[split] = proba.argmax(axis=1) == samples.y
        evaluations[split] = evaluate(
            samples.y, proba, samples.classes, official_size=max(official[split], len(samples))
        )
        tables.append(predictions_table(split, samples, proba, fitted.classes))
    return Fit(
        condition=condition,
        head=head,
        seed=seed,
        train_videos=len(parts["train"]),
        dim=parts["train"].x.shape[1],
        fit_s=fit_s,
        right=right,
        evaluations=evaluations,
        predictions=pd.concat(tables, ignore_index=True),
    )


def seeds_of(head: str, seeds: int) -> range:
    """The seeds that are worth a training of their own."""
    return range(seeds if head_kind(head).draws_random else 1)
