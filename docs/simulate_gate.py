"""Simulate years of weekly training in front of the gate; the table in reading-the-numbers.md.

    python docs/simulate_gate.py

The decisions are the product's own: `coinml.registry.gate_checks` with the levels of
`coinml.registry.error_budget`. Each row is of `YEARS` simulated years with a fixed seed.

The model of a year: every video has an answer that all heads share; a head gives it with
probability `SHARED`, and otherwise answers anew, so that heads of one accuracy err together, as
heads on the same embeddings do. A training fits one such head for each setting and takes the best
on val. The videos stay the same all year. Given the shared answers, the videos of a cell (shared
answer right or wrong, champion right or wrong) are alike, so that counts suffice, drawn from
binomial distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.evaluation.intervals import proportion
from coinml.evaluation.superiority import Answers, p_better
from coinml.registry.error_budget import ErrorBudget
from coinml.registry.gate import COVERAGE_FLOOR
from coinml.registry.gate_checks import checks_of_challenger, checks_of_first, passes

PAGE = Path(__file__).with_name("reading-the-numbers.md")
BEGIN, END = "<!-- simulated by docs/simulate_gate.py -->\n", "<!-- end of the simulation -->\n"
YEARS = 4000
WEEKS = 52
SETTINGS = 10
SHARED = 0.7
ACCURACY = 0.8
OLD_ALPHA = 0.05

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Numbers of val and test videos, of classes, and of heads that are trained each week."""

    val: int
    test: int
    classes: int
    heads: int


CASES = (
    Case(val=12, test=12, classes=2, heads=1),
    Case(val=12, test=12, classes=2, heads=2),
    Case(val=12, test=12, classes=4, heads=2),
    Case(val=40, test=40, classes=4, heads=2),
    Case(val=40, test=40, classes=4, heads=4),
    Case(val=150, test=150, classes=10, heads=2),
    Case(val=400, test=400, classes=20, heads=2),
    Case(val=1354, test=2797, classes=180, heads=1),
    Case(val=1354, test=2797, classes=180, heads=2),
    Case(val=1354, test=2797, classes=180, heads=4),
)


@dataclass(frozen=True, kw_only=True)
class Promotions:
    """Share of years with at least one promotion, by the rule before and by the gate."""

    before: float
    now: float

    def __str__(self) -> str:
        return f"{100 * self.before:.1f} → **{100 * self.now:.1f}**"


class Heads:
    """Heads of one accuracy on the same videos, for many years at once.

    Args:
        rng: Draws all answers.
        right: Number of videos whose shared answer is right, by year.
        n: Number of videos.
        gain: How much more accurate these heads are than those that share the answers.
    """

    def __init__(
        self, rng: np.random.Generator, right: Ints, n: int, accuracy: float, gain: float = 0.0
    ) -> None:
        self._rng = rng
        self.cells = np.stack([n - right, right])
        fresh = (1 - SHARED) * accuracy
        # The gain is where the shared answer is wrong.
        self._chances = (fresh + gain / (1 - accuracy), fresh + SHARED)

    def answer(self, cells: Ints, draws: int = 1) -> Ints:
        """Right answers of `draws` heads in cells (2, ..., years): (draws, 2, ..., years)."""
        chances = np.asarray(self._chances).reshape(2, *[1] * (cells.ndim - 1))
        return self._rng.binomial(cells, chances, (draws, *cells.shape))


def first_champions(case: Case, accuracy: float, *, years: int, seed: int) -> Promotions:
    """Years in which heads of some accuracy get a first champion; at chance, all are false."""
    rng = np.random.default_rng(seed)
    sides = {}
    for side, n in (("val", case.val), ("test", case.test)):
        # Classes are of equal size, as a stratified split leaves them.
        rate = math.ceil(n / case.classes) / n
        sides[side] = (n, rate, Heads(rng, rng.binomial(n, accuracy, years), n, accuracy))
    low = _lows(case.val)
    before = now = np.zeros(years, dtype=bool)
    for levels in _levels(case.heads):
        for level in levels:
            right = {}
            for side, (_, _, heads) in sides.items():
                draws = SETTINGS if side == "val" else 1
                right[side] = heads.answer(heads.cells, draws).sum(axis=1).max(axis=0)
            val, test = (
                Answers(right=right[side], n=n, majority_rate=rate)
                for side, (n, rate, _) in sides.items()
            )
            checks = checks_of_first(val, test, 1.0, level=level, coverage_floor=COVERAGE_FLOOR)
            now = now | passes(checks)
            before = before | (low[right["val"]] > val.majority_rate)
    return Promotions(before=float(before.mean()), now=float(now.mean()))


def replacements(
    case: Case, gain: float, *, settings: tuple[int, int], years: int, seed: int
) -> Promotions:
    """Years in which a champion is replaced by heads better by a gain; at 0, all are false.

    Args:
        case: The sizes.
        gain: Difference of the true accuracies.
        settings: From how many settings val chose the champion and each of the others.
        years: Number of simulated years.
        seed: Seed of all random numbers.
    """
    rng = np.random.default_rng(seed)
    shared = {n: rng.binomial(n, ACCURACY, years) for n in {case.val, case.test}}
    val, test = (
        [Heads(rng, shared[n], n, ACCURACY, extra) for extra in (0.0, gain)]
        for n in (case.val, case.test)
    )
    right = _best(val[0].answer(val[0].cells, settings[0]))
    # Cells by the shared answer and the champion's: it is wrong, or right.
    cells = np.stack([val[0].cells - right, right], axis=1)
    champion_test = test[0].answer(test[0].cells)[0].sum(axis=0)
    test_low = _lows(case.test)[champion_test]
    before = now = np.zeros(years, dtype=bool)
    for levels in _levels(case.heads, tries_before=1):
        for level in levels:
            answers = _best(val[1].answer(cells, settings[1]))
            wins, losses = answers[:, 0].sum(axis=0), (cells - answers)[:, 1].sum(axis=0)
            test_accuracy = test[1].answer(test[1].cells)[0].sum(axis=0) / case.test
            p_value = p_better(losses, wins)
            checks = checks_of_challenger(
                p_value,
                test_accuracy,
                test_low,
                1.0,
                level=level,
                coverage_floor=COVERAGE_FLOOR,
                settings_ratio=settings[1] / settings[0],
            )
            now = now | passes(checks)
            before = before | ((2 * p_value < OLD_ALPHA) & (test_accuracy >= test_low))
    return Promotions(before=float(before.mean()), now=float(now.mean()))


def table(years: int = YEARS) -> str:
    """The table in Markdown."""
    lines = [
        "| val videos | classes | heads a week | first at chance | equal | equal, from 10 times "
        f"as many settings | first at {ACCURACY} | 5 points better | 10 points better |",
        f"|{' --- |' * 9}",
    ]
    for number, case in enumerate(CASES):
        cells = (
            first_champions(case, 1 / case.classes, years=years, seed=number),
            replacements(case, 0.0, settings=(1, 1), years=years, seed=100 + number),
            replacements(case, 0.0, settings=(1, SETTINGS), years=years, seed=200 + number),
            first_champions(case, ACCURACY, years=years, seed=300 + number),
            replacements(case, 0.05, settings=(SETTINGS,) * 2, years=years, seed=400 + number),
            replacements(case, 0.1, settings=(SETTINGS,) * 2, years=years, seed=500 + number),
        )
        shown = (f"{case.val:,}", case.classes, case.heads, *cells)
        lines.append(f"| {' | '.join(map(str, shown))} |")
    return "\n".join(lines) + "\n"


def page_with(page: str, drawn: str) -> str:
    """The page with another table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{drawn}\n{END}{rest.partition(END)[2]}"


def _levels(heads: int, tries_before: int = 0) -> Iterator[list[float]]:
    """The levels of each week's tries, as the product's budget gives them."""
    budget, now = ErrorBudget(), datetime(2026, 1, 4, tzinfo=UTC)
    for week in range(-bool(tries_before), WEEKS):
        versions = tries_before if week < 0 else heads
        level = budget.level_for(versions, now)
        levels = []
        for head in range(versions):
            offered = budget.offer(f"{week}.{head}", "1", level)
            budget = budget.spend(offered, f"{week}.{head}", "1", now)
            levels.append(offered.level)
        if week >= 0:
            yield levels
        now += timedelta(days=7)


def _best(answers: Ints) -> Any:
    """Of heads in the first axis the one with most right answers, by year (the last axis)."""
    totals = answers.sum(axis=tuple(range(1, answers.ndim - 1)))
    chosen = totals.argmax(axis=0).reshape(1, *[1] * (answers.ndim - 2), -1)
    return np.take_along_axis(answers, chosen, axis=0)[0]


def _lows(n: int) -> npt.NDArray[np.float64]:
    """Lower ends of the intervals of 0 to n right answers of n."""
    return np.array([proportion(right, n).low for right in range(n + 1)])


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(page, table()), encoding="utf-8")
