"""What `coinml audit` finds of wrong labels, beside cleanlab's default rule.

Both use the same probabilities. Vectors are drawn around a centre for each class; where the spread
is large, classes overlap and labels are hard to tell. 5 % of the labels are flipped, or none: then
every suspect is a false alarm.
Every figure follows from the seed.

    python benchmarks/audit.py [--quick]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coinml.audit.labels import doubtful_labels
from coinml.audit.out_of_fold import out_of_fold

FLIPPED = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one rule found."""

    suspects: int
    precision: float
    recall: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Both rules on one drawn dataset."""

    videos: int
    accuracy: float
    ours: Found
    cleanlab: Found
    seconds: float


def simulate(
    classes: int, each: int, spread: float, *, flipped: float, dims: int = 64, seed: int = 0
) -> Outcome:
    """One drawn dataset, audited by both rules."""
    from cleanlab.filter import find_label_issues

    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dims))
    truth = np.repeat(np.arange(classes), each)
    x = (centres[truth] + spread * rng.normal(size=(len(truth), dims))).astype(np.float32)
    wrong = rng.choice(len(truth), round(flipped * len(truth)), replace=False)
    y = truth.copy()
    y[wrong] = (truth[wrong] + rng.integers(1, classes, len(wrong))) % classes
    ids = [f"v{place:06d}" for place in range(len(y))]
    table = pd.DataFrame({"video_id": ids, "label": [f"c{one:04d}" for one in y], "split": "train"})
    started = time.perf_counter()
    proba = out_of_fold(x, y, ids, seed=seed)
    ours = doubtful_labels(table, proba, y)["video_id"]
    seconds = time.perf_counter() - started
    theirs = [ids[place] for place in np.flatnonzero(find_label_issues(y, proba, n_jobs=1))]
    flips = {ids[place] for place in wrong}
    return Outcome(
        videos=len(y),
        accuracy=float((proba.argmax(axis=1) == truth).mean()),
        ours=_score(set(ours), flips),
        cleanlab=_score(set(theirs), flips),
        seconds=seconds,
    )


def _score(found: set[str], flips: set[str]) -> Found:
    right = len(found & flips)
    return Found(
        suspects=len(found),
        precision=right / len(found) if found else float("nan"),
        recall=right / len(flips) if flips else float("nan"),
    )


def main() -> None:
    """Print a table of all cases."""
    cases = [(3, 60, 2.0), (3, 60, 4.0), (20, 30, 1.5), (20, 30, 2.5)]
    if "--quick" not in sys.argv:
        cases += [(180, 24, 1.0), (180, 24, 1.5)]
    print(
        f"{'classes':>7} {'videos':>7} {'flipped':>7} {'accuracy':>8}  "
        f"{'coinml: suspects, precision, recall':>36}  {'cleanlab: the same':>26} {'s':>6}"
    )
    for classes, each, spread in cases:
        for flipped in (FLIPPED, 0.0):
            one = simulate(classes, each, spread, flipped=flipped)
            print(
                f"{classes:>7} {one.videos:>7,} {flipped:>7.0%} {one.accuracy:>8.3f}  "
                f"{one.ours.suspects:>16} {one.ours.precision:>9.2f} {one.ours.recall:>9.2f}  "
                f"{one.cleanlab.suspects:>8} {one.cleanlab.precision:>8.2f} "
                f"{one.cleanlab.recall:>8.2f} {one.seconds:>6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
