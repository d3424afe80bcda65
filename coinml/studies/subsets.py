"""Study `data`: ever larger parts of the training videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples
from coinml.heads.kinds import head_kind
from coinml.studies.plans import Condition
from coinml.studies.trials import Fit, fit_and_answer


def fit_subsets(
    parts: Mapping[Split, Samples],
    conditions: Sequence[Condition],
    *,
    heads: Sequence[str],
    seeds: int,
    device: str,
    official: Mapping[Split, int],
) -> Iterator[Fit]:
    """Train each head on each part of the training videos, for each seed.

    A seed draws the order in which videos are added, so that its smaller parts lie within its
    larger ones, and is the head's as well. Val and test stay whole.
    """
    train = parts["train"]
    for seed in range(seeds):
        order = nested_order(train.y, seed=seed)
        for condition in conditions:
            share = condition.value or 1.0
            size = subset_size(train.y, share)
            for head in heads:
                if seed and size == len(train) and not head_kind(head).draws_random:
                    continue  # All videos in whatever order make the same head.
                subset = train.take(np.sort(order[:size]))
                yield fit_and_answer(
                    condition.name,
                    head,
                    {**parts, "train": subset},
                    seed=seed,
                    device=device,
                    official=official,
                )


def nested_order(y: npt.NDArray[np.int64], *, seed: int) -> npt.NDArray[np.int64]:
    """Rows in an order whose beginnings are stratified: one of every class first.

    Args:
        y: Class of each row.
        seed: Another seed is another order.
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
    """Number of rows that a share means; never less than one of every class."""
    return min(len(y), max(round(share * len(y)), len(np.unique(y))))
