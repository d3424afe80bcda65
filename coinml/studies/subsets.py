"""Study `data`: training on nested subsets of the training videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from coinml.heads.kinds import head_kind
from coinml.studies.plans import Condition
from coinml.studies.trials import Parts, TrialOptions, TrialResult, run_trial


def run_subset_trials(
    parts: Parts, conditions: Sequence[Condition], options: TrialOptions
) -> Iterator[TrialResult]:
    """Train each head on each subset of the training videos, for each seed.

    A seed draws the order in which videos are added, so that its smaller subsets are contained in
    its larger ones; it is the head's seed as well. Val and test are used whole.
    """
    train = parts["train"]
    for seed in range(options.seeds):
        order = nested_order(train.y, seed=seed)
        for condition in conditions:
            share = condition.value or 1.0
            size = subset_size(train.y, share)
            for head in options.heads:
                if seed and size == len(train) and not head_kind(head).draws_random:
                    continue  # All videos in any order give the same head.
                subset = train.take(np.sort(order[:size]))
                yield run_trial(
                    condition.name, head, {**parts, "train": subset}, seed=seed, options=options
                )


def nested_order(y: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.int64]:
    """An order of the rows whose every beginning is stratified, with one of every class first.

    Args:
        y: Class of each row.
        seed: Seed of the order.
    """
    generator = np.random.default_rng(seed)
    members: dict[int, list[int]] = defaultdict(list)
    for row in generator.permutation(len(y)):
        members[int(y[row])].append(int(row))
    ranked = [
        ((rank > 0, rank / len(rows), float(generator.random())), row)
        for rows in members.values()
        for rank, row in enumerate(rows)
    ]
    return np.array([row for _, row in sorted(ranked)], dtype=np.int64)


def subset_size(y: npt.NDArray[np.int64], share: float) -> int:
    """Number of rows that a share is; at least one of every class."""
    return min(len(y), max(round(share * len(y)), len(np.unique(y))))
