"""The budget of false promotions, and what a year of weekly training does to the gate."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from coinml.embedding_sets.table import Samples
from coinml.errors import RegistryError
from coinml.evaluation.intervals import proportion
from coinml.evaluation.superiority import Answers
from coinml.heads.fit_head import fit_head
from coinml.registry.error_budget import FULL, ErrorBudget, Try
from coinml.registry.gate_checks import checks_of_first, passes

START = datetime(2026, 1, 4, tzinfo=UTC)
YEAR = timedelta(days=365)


def spent_over(days: list[float], versions: int) -> list[tuple[datetime, float]]:
    """The time and level of each try, with calls of some versions on these days."""
    budget, spent = ErrorBudget(), []
    for call, day in enumerate(days):
        now = START + timedelta(days=day)
        level = budget.level_for(versions, now)
        for one in range(versions):
            offered = budget.offer(f"{call}.{one}", "1", level)
            budget = budget.spend(offered, f"{call}.{one}", "1", now)
            spent.append((now, offered.level))
    return spent


@pytest.mark.parametrize(
    ("every_days", "versions"), [(0.01, 1), (1, 3), (7, 1), (7, 2), (90, 2), (365, 1), (400, 4)]
)
def test_the_levels_of_any_year_sum_to_at_most_five_per_cent(
    every_days: float, versions: int
) -> None:
    calls = min(3 * 365 / every_days + 1, 400)
    spent = spent_over([every_days * call for call in range(int(calls))], versions)
    assert all(level > 0 for _, level in spent)
    worst = max(
        sum(level for now, level in spent if start <= now < start + YEAR) for start, _ in spent
    )
    assert worst <= 0.05
    # The first try of a model has a level that small data can reach.
    assert spent[0][1] == pytest.approx(FULL / 2 / versions)


def test_who_trains_every_week_keeps_a_level_for_ever() -> None:
    levels = [level for _, level in spent_over([7.0 * week for week in range(520)], 2)]
    assert min(levels) > 0.01 / 365 * 7 / 2 * 0.9


def test_a_comparison_that_was_made_is_not_paid_twice() -> None:
    budget = ErrorBudget()
    first = budget.offer("5", "3", budget.level_for(1, START))
    budget = budget.spend(first, "5", "3", START)
    later = START + YEAR
    again = budget.offer("5", "3", budget.level_for(1, later))
    assert again == first
    assert budget.spend(again, "5", "3", later) == budget
    # Against another champion it is another comparison.
    other = budget.offer("5", "4", budget.level_for(1, later))
    assert other.number == 2
    assert budget.spend(other, "5", "4", later).tried == {"5": other}


def test_a_clock_that_goes_back_refills_nothing() -> None:
    budget = ErrorBudget().spend(Try(number=1, level=0.02), "1", "", START)
    back = budget.spend(Try(number=2, level=0.01), "2", "", START - YEAR)
    assert back.left == pytest.approx(0.01)
    assert back.at == START


def test_a_budget_is_read_back_from_its_tag_and_anything_else_is_refused() -> None:
    budget = ErrorBudget()
    assert ErrorBudget.from_json(budget.to_json()) == budget
    budget = budget.spend(Try(number=1, level=0.02), "1", "", START)
    assert ErrorBudget.from_json(budget.to_json()) == budget
    for text in ("", "7", "[]", "{}", budget.to_json().replace("0.02", '"much"')):
        with pytest.raises(RegistryError, match="not a record of the gate's tries"):
            ErrorBudget.from_json(text)


@pytest.fixture(scope="module")
def simulate_gate() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "docs" / "simulate_gate.py"
    spec = importlib.util.spec_from_file_location("simulate_gate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["simulate_gate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("val", "test", "classes"), [(12, 12, 2), (150, 150, 10), (1354, 2797, 9)])
def test_a_simulated_year_has_a_false_promotion_in_at_most_five_per_cent(
    simulate_gate: ModuleType, val: int, test: int, classes: int
) -> None:
    case = simulate_gate.Case(val=val, test=test, classes=classes, heads=2)
    chance = simulate_gate.first_champions(case, 1 / classes, years=400, seed=1)
    assert chance.now <= 0.05
    for settings in ((1, 1), (1, 10), (10, 10)):
        equal = simulate_gate.replacements(case, 0.0, settings=settings, years=400, seed=2)
        assert equal.now <= 0.05
    if val == 1354:
        # The rule before, p < 0.05 at every try, and what five points are worth.
        unswept = simulate_gate.replacements(case, 0.0, settings=(1, 1), years=400, seed=3)
        assert unswept.before > 0.3
        better = simulate_gate.replacements(case, 0.05, settings=(10, 10), years=100, seed=4)
        assert better.now > 0.95


def test_the_table_in_the_documents_is_of_this_simulation(simulate_gate: ModuleType) -> None:
    page = simulate_gate.PAGE.read_text(encoding="utf-8")
    written = page.partition(simulate_gate.BEGIN)[2].partition(simulate_gate.END)[0]
    rows = [line.split(" | ") for line in written.strip().splitlines()]
    assert len(rows) == 2 + len(simulate_gate.CASES)
    case = simulate_gate.CASES[-1]
    assert rows[-1][:3] == [f"| {case.val:,}", str(case.classes), str(case.heads)]
    false_promotions = [float(cell.split("**")[1]) for row in rows[2:] for cell in row[3:6]]
    assert len(false_promotions) == 3 * len(simulate_gate.CASES)
    assert max(false_promotions) <= 5.0


def test_shuffled_labels_of_a_small_folder_seldom_get_a_champion() -> None:
    folders, before, now = 120, 0, 0
    level = ErrorBudget().level_for(1, START)
    for seed in range(folders):
        rng = np.random.default_rng(seed)
        sides = {
            side: Samples(
                ids=tuple(f"{side}{i}" for i in range(n)),
                x=rng.normal(size=(n, 16)).astype(np.float32),
                y=rng.permutation(np.arange(n) % 4).astype(np.int64),
                classes=("a", "b", "c", "d"),
            )
            for side, n in (("train", 40), ("val", 12), ("test", 12))
        }
        head = fit_head("svm", sides["train"], sides["val"])
        val, test = (
            Answers(
                right=int(
                    (head.predict_proba(sides[side].x).argmax(axis=1) == sides[side].y).sum()
                ),
                n=12,
                majority_rate=0.25,
            )
            for side in ("val", "test")
        )
        before += proportion(int(val.right), 12).low > 0.25
        now += bool(passes(checks_of_first(val, test, 1.0, level=level, coverage_floor=0.5)))
    # Val chose the kernel and C, so that the rule before promoted a fifth of them.
    assert before >= 0.1 * folders
    assert now <= 0.05 * folders
