"""Sweeps: recorded trials, nested runs, a killed sweep, and no use of test videos."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation.evaluate import evaluate
from coinml.heads import mlp
from coinml.heads.calibration import fit_temperature
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import HEADS, KINDS, HeadKind
from coinml.heads.search_space import SearchSpace
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training import sweep as sweeping
from coinml.training import train_head as training
from coinml.training.sweep import sweep
from coinml.training.sweep_runs import tuning_samples
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, train, tune
from tests.helpers.synthetic_samples import needles

TRAIN, VAL = needles(400, seed=1), needles(80, seed=2)


@pytest.mark.parametrize("head", HEADS)
def test_the_first_trial_has_the_defaults_and_the_best_can_be_fitted(
    head: str, tmp_path: Path
) -> None:
    tried: list[Mapping[str, Any]] = []
    space = KINDS[head].load_search_space()

    def noted(trial: Any) -> dict[str, Any]:
        options = space.draw(trial) | ({"epochs": 3} if KINDS[head].has_epochs else {})
        tried.append(options)
        return options

    with pytest.MonkeyPatch.context() as patch:
        small = SearchSpace(noted, space.defaults, space.within)
        patch.setattr(HeadKind, "load_search_space", lambda _kind: small)
        found = sweep(head, TRAIN, VAL, trials=3, storage=tmp_path / "s.db", name="first")
    assert len(tried) == 3
    assert found.completed + found.pruned == 3
    # The first trial of a head that tries settings is its whole search.
    whole = found.trial == 0 and not KINDS[head].has_epochs
    assert found.options == ({} if whole else tried[found.trial])
    fitted = fit_head(head, TRAIN, VAL, options=found.options)
    again = sweeping._judge(fitted, VAL)
    # A training with the best options has the metrics of the best trial.
    assert again["val_accuracy"] == found.val_accuracy
    assert again["val_loss"] == pytest.approx(found.val_loss, rel=1e-5)


def test_the_defaults_of_the_sweep_are_those_of_the_trainers() -> None:
    import inspect

    from optuna.trial import FixedTrial

    from coinml.heads.attentive import train_attentive
    from coinml.heads.mlp import train_mlp

    for head, trainer in (("mlp", train_mlp), ("attentive", train_attentive)):
        space = KINDS[head].load_search_space()
        options = space.draw(FixedTrial(dict(space.defaults)))
        for name, value in options.items():
            default = inspect.signature(trainer).parameters[name].default
            assert value == (list(default) if name == "hidden" else default), (head, name)


@pytest.mark.parametrize("head", ["svm", "logreg", "knn"])
def test_a_sweep_is_never_worse_on_val_than_no_sweep(head: str, tmp_path: Path) -> None:
    for seed in range(3):
        train, val = needles(120, seed=10 + seed), needles(40, seed=20 + seed)
        plain = sweeping._judge(fit_head(head, train, val, calibrated=False), val)
        for trials in (1, 3):
            found = sweep(
                head, train, val, trials=trials, storage=tmp_path / f"{seed}.db", name="s"
            )
            assert found.val_accuracy >= plain["val_accuracy"]
            if found.val_accuracy == plain["val_accuracy"]:
                assert round(found.val_loss, 2) <= round(plain["val_loss"], 2)
            if trials == 1:
                assert found.options == {}


def test_what_is_set_by_hand_is_in_every_trial_and_the_rest_is_searched(tmp_path: Path) -> None:
    def trials(head: str, **fixed: Any) -> list[Mapping[str, Any]]:
        seen: list[tuple[int, Any]] = []
        name = "-".join([head, *fixed])
        sweep(
            head,
            TRAIN,
            VAL,
            trials=4,
            storage=tmp_path / "s.db",
            name=name,
            fixed=fixed,
            record=Noted(seen),
        )
        return [options for _, options in seen]

    first, *rest = trials("svm", kernels=["linear"])
    assert first == {"kernels": ["linear"]}
    assert all(set(one) == {"kernels", "linear_cs"} for one in rest)
    assert all(one["kernels"] == ["linear"] for one in rest)
    assert len({one["linear_cs"][0] for one in rest}) == 3
    first, *rest = trials("svm", gammas=[0.5])
    assert first == {"gammas": [0.5]}
    assert all(one["gammas"] == [0.5] for one in rest)
    networks = trials("mlp", class_weights="balanced", lr=2e-3, epochs=2)
    assert all(
        (one["class_weights"], one["lr"], one["epochs"]) == ("balanced", 2e-3, 2)
        for one in networks
    )
    assert len({one["dropout"] for one in networks}) == 4
    assert networks[0]["dropout"] == 0.4


def test_a_larger_sweep_continues_a_smaller_one(tmp_path: Path) -> None:
    def run(trials: int, file: str) -> tuple[list[tuple[int, Any]], list[int]]:
        seen: list[tuple[int, Any]] = []
        ticks: list[int] = []
        record = Noted(seen)
        sweep(
            "knn",
            TRAIN,
            VAL,
            trials=trials,
            storage=tmp_path / file,
            name="n",
            record=record,
            on_trial=ticks.append,
        )
        return seen, ticks

    whole, ticks = run(6, "whole.db")
    assert ticks == [1] * 6
    first, _ = run(4, "parts.db")
    second, ticks = run(6, "parts.db")
    assert ticks == [4, 1, 1]
    assert first + second == whole
    assert run(6, "parts.db") == ([], [6])


class Noted:
    """Records the trials that are reported to it."""

    def __init__(self, seen: list[tuple[int, Any]]) -> None:
        self._seen = seen

    def __call__(self, number: int, options: Mapping[str, Any]) -> Any:
        self._seen.append((number, options))
        return sweeping._no_record(number, options)


def test_trials_below_the_median_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def suggest(trial: Any) -> dict[str, Any]:
        late = trial.number >= 6
        return {"epochs": 20, "patience": 20, "lr": 1e-7 if late else 1e-2, "hidden": [16]}

    monkeypatch.setattr(mlp, "SEARCH_SPACE", SearchSpace(suggest, {}))
    small = TRAIN.take(np.arange(60))
    found = sweep("mlp", small, VAL, trials=8, storage=tmp_path / "s.db", name="n")
    assert (found.completed, found.pruned) == (6, 2)
    assert found.options["lr"] == 1e-2


def test_a_sweep_runs_in_one_process_at_a_time(tmp_path: Path) -> None:
    def again(_number: int) -> None:
        sweep("knn", TRAIN, VAL, trials=2, storage=tmp_path / "s.db", name="n")

    with pytest.raises(InvalidInputError, match="runs in another process"):
        sweep("knn", TRAIN, VAL, trials=2, storage=tmp_path / "s.db", name="n", on_trial=again)
    with pytest.raises(InvalidInputError, match="0 trials"):
        sweep("knn", TRAIN, VAL, trials=0, storage=tmp_path / "s.db", name="n")


SWEEP = """
import pickle, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import tune
folder = Path(sys.argv[1])
material = pickle.loads((folder / "material.pickle").read_bytes())
store = MlflowStore(uri=f"sqlite:///{folder}/mlflow.db", artifact_root=folder / "mlartifacts")
def wait():
    if (folder / "slow").exists():
        time.sleep(60)
def note(done):
    with (folder / "done").open("a") as file:
        file.write("x" * done)
    if (folder / "done").stat().st_size == 2:
        (folder / "slow").touch()
tune("knn", store, material, trials=4, storage=folder / "sweeps.db", on_trial=note, on_step=wait)
"""


@pytest.mark.timeout(200)
def test_a_killed_sweep_continues(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path
) -> None:
    (tmp_path / "material.pickle").write_bytes(pickle.dumps(material))
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(tmp_path), str(Path(__file__).parents[3])],
        env=dict(os.environ),
    )
    try:
        deadline = time.monotonic() + 120
        while len(store.find_runs(MODEL, {"trial": "2"}, finished=False)) == 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(0.5)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (parent,) = store.find_runs(MODEL, {"sweep_head": "knn"}, finished=False)
    ticks: list[int] = []
    report = tune(
        "knn",
        store,
        material,
        trials=4,
        storage=tmp_path / "sweeps.db",
        on_trial=ticks.append,
    )
    # Two were done; the third was running when the process was killed and is run again.
    assert ticks == [2, 1, 1]
    assert report.run_id == parent
    assert store.read_run(parent).info.status == "FINISHED"
    children = [
        store.read_run(run_id)
        for run_id in store.find_runs(MODEL, {"sweep_run_id": parent}, finished=False)
    ]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    states = sorted((int(run.data.tags["trial"]), run.info.status) for run in children)
    assert states == [
        (0, "FINISHED"),
        (1, "FINISHED"),
        (2, "KILLED"),
        (3, "FINISHED"),
        (4, "FINISHED"),
    ]
    by_trial = {run.data.tags["trial"]: run.data.params for run in children}
    assert by_trial["2"] == by_trial["3"]
    assert report.result.completed == 4


def test_training_with_the_best_options_gives_the_trials_metrics(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    tuned = tune("logreg", store, material, trials=2, storage=store.artifact_root / "sweeps.db")
    best = tuned.result
    report = train("logreg", store, material, options=dict(best.options))
    assert report.metrics["val_accuracy"] == best.val_accuracy
    # The run's own loss is at the temperature that is fitted out of fold; a trial has none, and its
    # loss is that at val's best temperature.
    samples, val = tuning_samples(material.table)
    head = fit_head("logreg", samples, val, options=dict(best.options))
    proba = head.predict_proba(val.x)
    loss = evaluate(val.y, proba, head.classes).loss
    assert report.metrics["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert fit_temperature(proba, val.y)[1] == pytest.approx(best.val_loss, rel=1e-3)
    # The trials were not measured on the test videos.
    assert report.metrics["test_looks"] == 1
    # A training without a sweep is the same one where the first trial, the defaults, is the best.
    assert train("logreg", store, material).reused == (not best.options)
    assert not train("logreg", store, material, options={"cs": [0.5]}).reused


def test_a_sweep_with_options_set_by_hand_is_another_sweep(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    storage = store.artifact_root / "sweeps.db"
    plain = tune("knn", store, material, trials=2, storage=storage)
    fixed = tune("knn", store, material, trials=2, storage=storage, fixed={"ks": [3]})
    assert plain.run_id != fixed.run_id
    assert fixed.result.options == {"ks": [3]}
    assert store.read_run(fixed.run_id).data.params == {"ks": "[3]"}
    again = tune("knn", store, material, trials=2, storage=storage, fixed={})
    assert again.run_id == plain.run_id


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Any table with two classes in training and something in each split."""
    splits = ["train", "train", "val", "test"]
    splits += draw(st.lists(st.sampled_from(["train", "val", "test"]), max_size=12))
    labels = ["a", "b"]
    labels += draw(
        st.lists(st.sampled_from("abc"), min_size=len(splits) - 2, max_size=len(splits) - 2)
    )
    order = draw(st.permutations(range(len(splits))))
    rows = pd.DataFrame(
        {
            "video_id": [f"v{i}" for i in range(len(splits))],
            "label": labels,
            "split": splits,
            "e0000": np.arange(len(splits), dtype=np.float32),
            "e0001": np.ones(len(splits), dtype=np.float32),
        }
    )
    return rows.iloc[list(order)].reset_index(drop=True)


@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_tuning_is_given_no_test_video_of_any_table(table: pd.DataFrame) -> None:
    clips = {i: np.full((2, 2), n, np.float16) for n, i in enumerate(table["video_id"])}
    seen = tuning_samples(table, clips)
    test = set(table["video_id"][table["split"] == "test"])
    assert test
    assert not test & {video_id for samples in seen for video_id in samples.ids}
    # Nor its vector under another id: each vector's first number identifies it.
    own = table.set_index("video_id")["e0000"]
    for samples, split in zip(seen, ("train", "val"), strict=True):
        assert set(samples.ids) == set(table["video_id"][table["split"] == split])
        assert samples.x[:, 0].tolist() == [own[video_id] for video_id in samples.ids]
        assert samples.clips is not None
        assert all(
            np.array_equal(c, clips[i]) for c, i in zip(samples.clips, samples.ids, strict=True)
        )


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000), head=st.sampled_from(["knn", "logreg"]))
def test_no_head_is_fitted_on_a_test_video_of_any_split(
    seed: int,
    head: str,
    tmp_path_factory: pytest.TempPathFactory,
    material: EmbeddedDataset,
    new_store: Any,
) -> None:
    folder = tmp_path_factory.mktemp("split")
    store = new_store(folder)
    table = material.table.copy()
    table["split"] = np.random.default_rng(seed).permutation(table["split"].to_numpy())
    given_to: list[set[str]] = []

    def noted(name: str, train: Samples, val: Samples, **options: Any) -> Any:
        given_to.append({*train.ids, *val.ids})
        return fit_head(name, train, val, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "fit_head", noted)
        patch.setattr(training, "fit_head", noted)
        tuned = tune(head, store, material, table=table, trials=2, storage=folder / "s.db")
        train(head, store, material, table=table, options=dict(tuned.result.options))
    assert len(given_to) == 3
    test = set(table["video_id"][table["split"] == "test"])
    assert len(test) == 6
    assert not any(test & ids for ids in given_to)


def test_two_identical_trainings_have_identical_metrics(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path, new_store: Any
) -> None:
    (tmp_path / "other").mkdir()
    other = new_store(tmp_path / "other")
    for head in ("mlp", "svm"):
        first, second = train(head, store, material), train(head, other, material)
        assert first.metrics == second.metrics
        assert not second.reused
        predictions = [
            s.read_table(r.run_id, "predictions") for s, r in ((store, first), (other, second))
        ]
        assert predictions[0].equals(predictions[1])
