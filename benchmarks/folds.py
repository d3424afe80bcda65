"""How often intervals over the folds of a cross-validation cover, by simulation.

    python -m benchmarks.folds [--tests 300] [--seed 0]

The second table is about the gate's first champion: how often an exact binomial test against the
majority class has p <= 0.02 on the answers of a cross-validation, and on those of a test side of
15 %, by heads at chance and by better ones.

Heads are nearest centroids of Gaussian classes. An interval covers if it contains the mean true
accuracy of heads that are trained on as many videos. "t" is the usual interval over folds and
repeats, "all videos" Wilson's interval of the videos' mean answers.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy.special import stdtrit

from coinml.evaluation.across_folds import accuracy_over_folds
from coinml.evaluation.intervals import share_of
from coinml.evaluation.superiority import Answers

FOLDS = 5
LEVEL = 0.02


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    print("| videos | groups | repeats | accuracy | t | all videos | now | width of now |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for videos, groups, repeats in (
        (40, 0, 3),
        (80, 0, 1),
        (80, 0, 3),
        (300, 0, 3),
        (200, 10, 3),
        (200, 25, 3),
    ):
        row = _covered(generator, videos, groups, repeats, options.tests)
        print(f"| {videos} | {groups or videos} | {repeats} | {row} |", flush=True)
    print()
    print("| videos | accuracy | test side | cross-validation | at a third of the level |")
    print("| --- | --- | --- | --- | --- |")
    for videos in (40, 80, 300):
        for strength in (0.0, 0.5, 0.9):
            row = _significant(generator, videos, strength, 10 * options.tests)
            print(f"| {videos} | {row} |", flush=True)


def _covered(
    generator: np.random.Generator, videos: int, n_groups: int, repeats: int, tests: int
) -> str:
    means = generator.normal(size=(2, 20))
    means *= 1.3 / np.linalg.norm(means, axis=1, keepdims=True)
    # Videos of a group share a shift.
    share = 0.6 if n_groups else 0.0
    truth_y = generator.integers(0, 2, 5000)
    truth_x = means[truth_y] + generator.normal(size=(5000, 20))
    drawn, truths = [], []
    for _ in range(tests):
        y = generator.permutation(np.arange(videos) % 2)
        group = generator.integers(0, n_groups, videos) if n_groups else np.arange(videos)
        shift = generator.normal(size=(group.max() + 1, 20))
        own = math.sqrt(1 - share) * generator.normal(size=(videos, 20))
        x = means[y] + own + math.sqrt(share) * shift[group]
        right, sizes = [], []
        for _ in range(repeats):
            order = generator.permutation(group.max() + 1)
            fold = (np.argsort(order) % FOLDS)[group]
            for k in range(FOLDS):
                test = fold == k
                centres = [x[~test & (y == c)].mean(axis=0) for c in (0, 1)]
                right.append((_nearest(centres, x[test]) == y[test]).sum())
                sizes.append(test.sum())
                truths.append((_nearest(centres, truth_x) == truth_y).mean())
        drawn.append((np.array(right), np.array(sizes), len(set(group.tolist()))))
    truth = float(np.mean(truths))
    found = []
    for right, sizes, groups in drawn:
        now = accuracy_over_folds(right, sizes, groups=groups, folds=FOLDS)
        half = stdtrit(len(right) - 1, 0.975) * (right / sizes).std(ddof=1)
        plain = share_of(now.value * videos, videos)
        found.append(
            [
                abs(now.value - truth) <= half / math.sqrt(len(right)),
                plain.low <= truth <= plain.high,
                now.low <= truth <= now.high,
                now.high - now.low,
            ]
        )
    return f"{truth:.2f} | " + " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0))


def _significant(generator: np.random.Generator, videos: int, strength: float, tests: int) -> str:
    means = generator.normal(size=(2, 20))
    means *= strength / np.linalg.norm(means, axis=1, keepdims=True)
    found = []
    for _ in range(tests):
        y = generator.permutation(np.arange(videos) % 2)
        x = means[y] + generator.normal(size=(videos, 20))
        # Stratified, as the folds of a cross-validation are.
        fold = np.empty(videos, dtype=np.int64)
        fold[np.argsort(y, kind="stable")] = np.arange(videos) % FOLDS
        right = np.empty(videos, dtype=bool)
        for k in range(FOLDS):
            test = fold == k
            centres = [x[~test & (y == c)].mean(axis=0) for c in (0, 1)]
            right[test] = _nearest(centres, x[test]) == y[test]
        side = right[fold == 0][: round(0.15 * videos)]
        held = Answers(right=int(side.sum()), n=len(side), majority_rate=0.5).p_value
        crossed = Answers(right=int(right.sum()), n=videos, majority_rate=0.5).p_value
        found.append([right.mean(), held <= LEVEL, crossed <= LEVEL, crossed <= LEVEL / 3])
    accuracy, *shares = np.mean(found, axis=0)
    return f"{accuracy:.2f} | " + " | ".join(f"{share:.3f}" for share in shares)


def _nearest(centres: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    distances = [((x - centre) ** 2).sum(axis=1) for centre in centres]
    return np.asarray(np.argmin(distances, axis=0))


if __name__ == "__main__":
    main()
