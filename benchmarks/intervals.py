"""How often intervals over groups cover, and how often the paired test errs, by simulation.

    python -m benchmarks.intervals [--tests 1000] [--seed 0]

Answers come in groups (the segments of a video, the videos of a person), with an intra-class
correlation. Beside coinml's intervals the table has those for independent rows (Wilson's,
McNemar's) and those that coinml had before: an effective sample size with the quantile of the
normal distribution.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from coinml.evaluation.clusters import members
from coinml.evaluation.intervals import clustered_proportion, proportion, score_interval
from coinml.evaluation.paired import clustered_difference, mcnemar

Rows = npt.NDArray[np.bool_]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    print("| groups | rows each | accuracy | correlation | independent | before | now | says so |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for n_groups in (5, 8, 15, 30):
        for size in (4, 20, 0):
            for share, alike in ((0.6, 0.3), (0.8, 0.1), (0.8, 0.3), (0.95, 0.3)):
                row = _coverage(generator, n_groups, size, share, alike, options.tests)
                shown = size or "1 to 60"
                print(f"| {n_groups} | {shown} | {share} | {alike} | {row} |", flush=True)
    print()
    print(
        "| groups | rows each | accuracy | difference covered | says so | false p < 0.05 "
        "| as independent rows |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for n_groups in (5, 10, 20, 40):
        for size in (4, 20, 0):
            for share in (0.75, 0.95):
                row = _paired(generator, n_groups, size, share, options.tests)
                shown = size or "1 to 60"
                print(f"| {n_groups} | {shown} | {share} | {row} |", flush=True)


def _coverage(
    generator: np.random.Generator,
    n_groups: int,
    size: int,
    share: float,
    alike: float,
    tests: int,
) -> str:
    found = []
    for _ in range(tests):
        sizes = _sizes(generator, n_groups, size)
        weight = 1 / alike - 1
        of_group = generator.beta(share * weight, (1 - share) * weight, n_groups)
        groups = np.repeat(np.arange(n_groups), sizes)
        hits = generator.random(len(groups)) < of_group[groups]
        now, plain = clustered_proportion(hits, groups), proportion(int(hits.sum()), len(hits))
        ends = [(plain.low, plain.high), _before(hits, groups), (now.low, now.high)]
        found.append([*(low <= share <= high for low, high in ends), bool(now.caveat)])
    return " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0))


def _before(hits: Rows, groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The interval of earlier versions: an effective sample size, and the normal quantile."""
    share, member = float(hits.mean()), members(groups.tolist())
    sums = np.bincount(member, weights=hits - share)
    n_groups, n = len(sums), len(hits)
    variance = n_groups / (n_groups - 1) * float(sums @ sums) / n**2
    spread = share * (1 - share)
    size = min(n, spread / variance) if variance > 0 and spread > 0 else n_groups
    return score_interval(share, size)


def _sizes(generator: np.random.Generator, n_groups: int, size: int) -> npt.NDArray[np.int64]:
    """Rows of each group: `size`, or where it is 0 very unequal numbers, 10 on average."""
    return np.full(n_groups, size) if size else generator.geometric(1 / 10, n_groups)


def _paired(
    generator: np.random.Generator, n_groups: int, size: int, share: float, tests: int
) -> str:
    found = []
    for _ in range(tests):
        groups = np.repeat(np.arange(n_groups), _sizes(generator, n_groups, size))
        effect = 0.8 * generator.normal(size=n_groups) + 0.6 * generator.normal(size=(2, n_groups))
        row = 0.8 * generator.normal(size=len(groups))
        each = 0.6 * generator.normal(size=(2, len(groups)))
        score = np.sqrt(0.3) * effect[:, groups] + np.sqrt(0.7) * (row + each)
        a, b = score < ndtri(share)
        estimate = clustered_difference(a, b, groups.tolist())
        found.append(
            [
                estimate.low <= 0 <= estimate.high,
                bool(estimate.caveat),
                mcnemar(a, b, groups=groups.tolist()).p_value < 0.05,
                mcnemar(a, b).p_value < 0.05,
            ]
        )
    return " | ".join(f"{value:.2f}" for value in np.mean(found, axis=0))


if __name__ == "__main__":
    main()
