"""Every kind of head: fitting, options, files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coinml.errors import InvalidInputError
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import (
    DEFAULT_HEADS,
    HEADS,
    KINDS,
    check_heads,
    head_file,
    head_kind,
    load_head,
)
from coinml.heads.protocol import head_input
from tests.helpers.synthetic_samples import needles

TRAIN, VAL, TEST = needles(400, seed=1), needles(80, seed=2), needles(200, seed=3)

QUICK = {"mlp": {"epochs": 3}, "attentive": {"epochs": 3, "width": 16}}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_fitted_saved_and_loaded_by_its_kind(name: str, tmp_path: Path) -> None:
    steps: list[dict[str, float]] = []
    head = fit_head(
        name, TRAIN, VAL, options=QUICK.get(name), on_step=lambda n: steps.append(dict(n))
    )
    assert len(steps) >= 3
    # Numbers of neighbours above the number of videos are left out.
    most = head_kind(name).max_steps(QUICK.get(name, {}))
    assert len(steps) == most or (name == "knn" and len(steps) < most)
    assert all(("val_accuracy" in step) == (name in QUICK) for step in steps)
    assert head.settings
    proba = head.predict_proba(head_input(head, TEST))
    assert proba.shape == (len(TEST), 4)
    head.save(tmp_path / head_file(name))
    loaded = load_head(tmp_path / head_file(name))
    assert type(loaded) is type(head)
    assert loaded.takes_clips == head.takes_clips == head_kind(name).takes_clips
    assert head.takes_clips == (name == "attentive")
    assert np.array_equal(loaded.predict_proba(head_input(loaded, TEST)), proba)


def test_a_trainer_imports_no_more_of_scikit_learn_where_its_libraries_are_imported() -> None:
    """Two heads that begin in threads would import it at the same time, and one would fail."""
    code = """
import sys
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import KINDS, import_libraries
from tests.helpers.synthetic_samples import needles

assert "sklearn" not in sys.modules
import_libraries()
before = set(sys.modules)
train, val = needles(80, seed=1), needles(40, seed=2)
for name, kind in KINDS.items():
    if not kind.has_epochs:
        fit_head(name, train, val)
print(sorted(name for name in set(sys.modules) - before if name.startswith("sklearn.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]"]


@pytest.mark.parametrize("name", HEADS)
def test_identical_trainings_have_identical_numbers(name: str) -> None:
    steps: list[list[object]] = [[], []]
    answers = []
    for history in steps:
        head = fit_head(name, TRAIN, VAL, options=QUICK.get(name), seed=5, on_step=history.append)
        answers.append(head.predict_proba(head_input(head, TEST)))
    assert steps[0] == steps[1]
    assert np.array_equal(answers[0], answers[1])


def test_unknown_heads_options_and_files_are_named(tmp_path: Path) -> None:
    assert set(DEFAULT_HEADS) < set(HEADS)
    with pytest.raises(
        InvalidInputError, match="forest: allowed are mlp, svm, attentive, logreg, knn"
    ):
        check_heads(["mlp", "forest"])
    with pytest.raises(InvalidInputError, match="none"):
        check_heads([])
    with pytest.raises(InvalidInputError, match="twice"):
        check_heads(["mlp", "mlp"])
    assert all(KINDS[name].name == name for name in HEADS)
    with pytest.raises(InvalidInputError, match="no option trees; it has hidden, shortcut"):
        fit_head("mlp", TRAIN, VAL, options={"trees": 3})
    with pytest.raises(InvalidInputError, match="forest"):
        head_file("forest")
    with pytest.raises(InvalidInputError, match="ends in"):
        load_head(tmp_path / "head.pkl")
