"""What nothing needs any more is listed, and removed when asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coinml.embedding_sets import EmbeddingSet
from coinml.errors import TransientError
from coinml.registry import retention, stored_encoders
from coinml.registry.retention import delete_old_runs, find_old_runs
from coinml.registry.versions import list_versions
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training import sweep
from coinml.training.looks import count_looks
from coinml.upkeep.gc import GcReport, collect_garbage
from coinml.upkeep.gc_options import GcOptions
from coinml_cli.app import app
from tests.helpers.hourly_runs import MODEL, sweep_once, train_once
from tests.helpers.small_sets import SPEC, rows

NOW = GcOptions(keep=2, min_age_days=0)
MODEL_BYTES = 20_000


@pytest.fixture
def settings(store: MlflowStore, tmp_path: Path) -> Settings:
    """The settings of the home in which the store is."""
    assert store.artifact_root.parent == tmp_path
    return Settings(home=tmp_path)


def trained(store: MlflowStore, folder: Path, count: int, head: str = "mlp") -> list[str]:
    return [train_once(store, folder, head=head, model_bytes=MODEL_BYTES) for _ in range(count)]


def runs_of(store: MlflowStore) -> set[str]:
    return set(store.find_runs(MODEL, {}, finished=False))


def models_on_disk(store: MlflowStore) -> int:
    return len(list(store.artifact_root.rglob("weights.bin")))


def collected(settings: Settings, store: MlflowStore, *, delete: bool = True) -> GcReport:
    return collect_garbage(settings, store, NOW, delete=delete)


def test_runs_and_versions_beyond_the_latest_go_with_their_files(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    mlp = trained(store, tmp_path / "x", 5)
    svm = trained(store, tmp_path / "x", 2, head="svm")
    listed = collected(settings, store, delete=False)
    assert (len(listed.items), listed.deleted, len(runs_of(store))) == (2, False, 7)
    assert listed.size_bytes > 2 * MODEL_BYTES
    done = collected(settings, store)
    assert done.items == listed.items
    # The champion and the latest two of each head.
    assert runs_of(store) == {mlp[0], *mlp[3:], *svm}
    assert {row["run_id"] for row in list_versions(store)} == {mlp[0], *mlp[3:], *svm}
    assert models_on_disk(store) == 5
    assert not [path for one in mlp[1:3] for path in store.artifact_root.rglob(one)]
    assert collected(settings, store).items == ()
    with store.run(MODEL, "afterwards", tags={}) as log:
        log.metrics({"one": 1.0})


def test_no_row_of_a_removed_run_is_left(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    import sqlite3
    from contextlib import closing

    trained(store, tmp_path / "x", 3)

    def rows_by_table() -> dict[str, int]:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for (name,) in names.fetchall()
            }

    before = rows_by_table()
    trained(store, tmp_path / "x", 4)
    assert len(collected(settings, store).items) == 4
    after = rows_by_table()
    grown = {name: after[name] - before[name] for name in after if after[name] > before[name]}
    # The count of looks; and of each version a row with one tag, by which MLflow goes on counting.
    assert grown == {"experiment_tags": 1, "model_versions": 4, "model_version_tags": 4}


def test_versions_that_nobody_judged_stay(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    trained(store, tmp_path / "x", 1)
    waiting = trained(store, tmp_path / "x", 2)
    for row in list_versions(store)[:2]:
        store.client().delete_model_version_tag(MODEL, str(row["version"]), "gate")
    trained(store, tmp_path / "x", 3)
    collected(settings, store)
    assert set(waiting) <= runs_of(store)


def test_looks_at_the_test_videos_are_remembered(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    trained(store, tmp_path / "x", 6)
    before = count_looks(store, MODEL, "0" * 12, {"v0"})
    assert before == 6
    assert len(collected(settings, store).items) == 3
    assert count_looks(store, MODEL, "0" * 12, {"v0"}) == before


def test_what_is_in_progress_or_young_or_deleted_by_others_stays(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    trained(store, tmp_path / "x", 4)
    store.client().create_experiment("theirs")
    theirs = store.client().get_experiment_by_name("theirs").experiment_id
    store.client().delete_experiment(theirs)
    assert find_old_runs(store, keep=1, min_age_days=1) == []
    with store.run(MODEL, "now", tags={"kind": "head", "head": "mlp"}) as log:
        collected(settings, store)
        assert log.run_id in runs_of(store)
    # MLflow's own command would have removed it for good.
    store.client().restore_experiment(theirs)


def test_sweeps_go_with_their_trials(settings: Settings, store: MlflowStore) -> None:
    sweeps = [sweep_once(store, trials=3) for _ in range(3)]
    assert len(collected(settings, store).items) == 4
    left = runs_of(store)
    assert set(sweeps[1:]) < left
    assert len(left) == 8


def test_a_killed_call_is_continued(
    settings: Settings, store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(store, tmp_path / "x", 5)
    old = find_old_runs(store, keep=2, min_age_days=0)
    # As if it were killed before the rows are removed.
    delete_old_runs(store, old, database=None)
    assert runs_of(store).isdisjoint(one.run_id for one in old)
    trained(store, tmp_path / "x", 1)
    collected(settings, store)
    for one in old:
        assert not store.has_run(one.run_id)
        with pytest.raises(Exception, match="not found"):
            store.client().get_run(one.run_id)


def test_folders_that_mlflow_does_not_know_are_removed(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    trained(store, tmp_path / "x", 1)
    root = store.artifact_root / MODEL
    orphan, other = root / "models" / f"m-{'a' * 32}", root / "notes"
    for folder in (orphan, root / ("b" * 32), other):
        (folder / "artifacts").mkdir(parents=True)
        (folder / "artifacts" / "file").write_bytes(b"x" * 1000)
    listed = collected(settings, store, delete=False)
    assert {Path(item.name).name for item in listed.items} == {orphan.name, "b" * 32}
    assert collected(settings, store).size_bytes == 2000
    assert other.exists()
    assert not orphan.exists()
    assert models_on_disk(store) == 1


def test_an_encoder_goes_with_the_last_model_that_needs_it(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    trained(store, tmp_path / "x", 1)
    old, *_, new = trained(store, tmp_path / "x", 3)
    lost, kept = stored(store, old, b"old", tmp_path), stored(store, new, b"new", tmp_path)
    report = collected(settings, store)
    assert [Path(one.name).name for one in report.items if one.kind == "encoder"] == [lost]
    with stored_encoders.encoder_folder(kept) as folder:
        assert (folder / "weights.safetensors").read_bytes() == b"new"
    assert stored(store, new, b"old", tmp_path) == lost
    with stored_encoders.encoder_folder(lost) as folder:
        assert (folder / "weights.safetensors").read_bytes() == b"old"


def test_encoders_of_killed_processes_are_removed_or_brought_back(
    settings: Settings, store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_id,) = trained(store, tmp_path / "x", 1)
    needed = stored(store, run_id, b"needed", tmp_path)
    root = store.artifact_root / stored_encoders.EXPERIMENT
    # As kills leave them: while one is removed, and while one is stored.
    (root / needed).rename(root / f".{needed}.unused")
    for name in (".0123456789ab.unused", ".tmpab12", ".tmpcd34"):
        (root / name).mkdir()
    for name in (f".{needed}.unused", ".0123456789ab.unused", ".tmpab12"):
        os.utime(root / name, (0, 0))
    collected(settings, store)
    assert {one.name for one in root.iterdir()} == {needed, ".tmpcd34"}

    # Replaced, since MLflow cannot be made to go away in this moment.
    monkeypatch.setattr(retention, "encoders_in_use", refuse)
    with pytest.raises(TransientError):
        retention.remove_unused_encoder(store, root / needed)
    with stored_encoders.encoder_folder(needed) as folder:
        assert (folder / "weights.safetensors").read_bytes() == b"needed"


def stored(store: MlflowStore, run_id: str, weights: bytes, folder: Path) -> str:
    """Store an encoder for a run's model; its digest."""
    file = folder / "weights.safetensors"
    file.write_bytes(weights)
    experiment = store.read_run(run_id).info.experiment_id
    (model,) = [
        one.model_id
        for one in store.client().search_logged_models([experiment])
        if one.source_run_id == run_id
    ]
    return stored_encoders.store_encoder(store, model, [file])


def refuse(_: MlflowStore) -> set[str]:
    raise TransientError("MLflow does not answer")


def test_leftovers_of_sets_studies_and_sweeps_are_removed(
    settings: Settings, store: MlflowStore
) -> None:
    found = EmbeddingSet.open(settings.embeddings_root, "mini", SPEC, create=True)
    part = str(found.append([rows("a")]))
    found.append([rows("b")])
    found.set_aside(part)
    study = settings.data_dir / "studies" / "resolution" / "v0.mp4"
    study.parent.mkdir(parents=True)
    study.write_bytes(b"film")
    import optuna

    storage = settings.data_dir / "sweeps.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("forgotten", "x"):
        optuna.create_study(study_name=name, storage=f"sqlite:///{storage}")
    sweep_once(store, trials=1)
    kinds = [item.kind for item in collected(settings, store).items]
    assert sorted(kinds) == ["part", "study file", "sweep"]
    assert [path.name for path in Path(found.path).iterdir() if "bad-" in path.name] == []
    assert found.done() == {("b", None, None, "aa")}
    assert not study.exists()
    assert sweep.sweeps_before(storage, time.time() + 1) == ["x"]


def test_a_long_log_begins_anew_and_its_writers_go_on(
    settings: Settings, store: MlflowStore
) -> None:
    settings.logs_dir.mkdir(parents=True)
    path = settings.logs_dir / "worker-gpu.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 300_000)
        options = NOW.model_copy(update={"log_mb": 1})
        report = collect_garbage(settings, store, options, delete=True)
        assert [item.kind for item in report.items] == ["log"]
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert path.with_name("worker-gpu.log.1").stat().st_size == 1_200_000


def test_the_command_lists_first(
    settings: Settings, store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    trained(store, tmp_path / "x", 4)
    call = ["gc", "--keep", "1", "--min-age-days", "0"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "MB could be removed: 2 run" in done.stdout
    assert len(runs_of(store)) == 4
    done = CliRunner().invoke(app, [*call, "--delete"])
    assert "MB removed: 2 run" in done.stdout
    assert len(runs_of(store)) == 2
    assert "nothing to remove" in CliRunner().invoke(app, call).stdout


def test_sizes_are_bounded_however_long_it_goes_on(
    settings: Settings, store: MlflowStore, tmp_path: Path
) -> None:
    sizes = []
    for _ in range(4):
        trained(store, tmp_path / "x", 4)
        collected(settings, store)
        artifacts = sum(p.stat().st_size for p in store.artifact_root.rglob("*") if p.is_file())
        sizes.append((artifacts, (tmp_path / "mlflow.db").stat().st_size))
    assert len({artifacts for artifacts, _ in sizes[1:]}) == 1
    # What MLflow keeps of eight versions.
    assert sizes[3][1] - sizes[1][1] <= 8 * 2048
    # The champion and the latest two.
    assert sizes[-1][0] < 3 * (MODEL_BYTES + 10_000)
