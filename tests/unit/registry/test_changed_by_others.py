"""What others do to MLflow, with real stores on SQLite and MLflow's own commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import ViewType

from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError, RegistryError
from coinml.ledger import Ledger
from coinml.registry.promotion import promote
from coinml.registry.versions import CHAMPION, has_version, version_at
from coinml.report.gathering import ReportData, gather
from coinml.report.page import render
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.made_up_versions import NAME, candidate, holder, tags


def mlflow_command(store: MlflowStore, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *arguments],
        env={**os.environ, "MLFLOW_TRACKING_URI": store.uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def run_of(store: MlflowStore, version: int) -> str:
    return str(store.client().get_model_version(NAME, str(version)).run_id)


def artifacts_of(store: MlflowStore, version: int) -> Path:
    uri = store.read_run(run_of(store, version)).info.artifact_uri
    return Path(uri.removeprefix("file://"))


def collect_garbage(store: MlflowStore, version: int) -> None:
    store.client().delete_run(run_of(store, version))
    mlflow_command(store, "gc", "--backend-store-uri", store.uri)


def remove_files(store: MlflowStore, version: int) -> None:
    shutil.rmtree(artifacts_of(store, version))


def damage_table(store: MlflowStore, version: int) -> None:
    (artifacts_of(store, version) / "tables" / "predictions.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize("lose", [collect_garbage, remove_files, damage_table])
def test_a_champion_whose_predictions_are_gone_is_neither_replaced_in_silence_nor_for_ever(
    lose: object, store: MlflowStore
) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    lose(store, old)  # type: ignore[operator]
    new = candidate(store, right=0.9)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert verdict.reason.startswith(
        f"not compared with champion {old}, which cannot be compared any more (run "
    )
    assert f"`coinml promote --version {new} --replace-lost`" in verdict.reason
    assert "(val accuracy when registered: 0.900, the champion's 0.600)" in verdict.reason
    assert holder(store, CHAMPION) == old
    assert tags(store, new)["gate_reason"] == verdict.reason
    # The challenger is judged again when nothing else waits.
    (verdict,) = promote(store, NAME, replace_lost=True)
    assert (verdict.version, verdict.promoted) == (new, True)
    assert f"it replaces champion {old}, which cannot be compared any more" in verdict.reason
    assert holder(store, CHAMPION) == new
    assert holder(store, "previous") == old


def test_a_lost_champion_is_not_replaced_by_a_version_at_chance(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    remove_files(store, old)
    candidate(store, right=0.35)
    (verdict,) = promote(store, NAME, replace_lost=True)
    assert not verdict.promoted
    assert "does not lie above the majority class" in verdict.reason
    assert holder(store, CHAMPION) == old


def test_a_champion_that_can_be_compared_is_compared_whatever_is_asked(store: MlflowStore) -> None:
    old = candidate(store, right=0.9)
    promote(store, NAME)
    # A run that is deleted but not collected has its files.
    store.client().delete_run(run_of(store, old))
    candidate(store, right=0.6)
    (verdict,) = promote(store, NAME, replace_lost=True)
    assert verdict.reason.startswith(f"not better than champion {old}")
    assert holder(store, CHAMPION) == old


def test_a_candidate_without_predictions_is_refused(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.9)
    collect_garbage(store, new)
    (verdict,) = promote(store, NAME)
    assert (verdict.version, verdict.promoted) == (new, False)
    assert verdict.reason.startswith("its own predictions are gone (run ")
    assert holder(store, CHAMPION) == old


def test_without_the_alias_the_next_one_is_judged_as_the_first(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    store.client().delete_registered_model_alias(NAME, CHAMPION)
    new = candidate(store, right=0.55)
    (verdict,) = promote(store, NAME)
    assert (verdict.version, verdict.promoted) == (new, True)


def test_a_version_registered_by_hand_does_not_stop_the_others(
    store: MlflowStore, tmp_path: Path
) -> None:
    good = candidate(store, right=0.8)
    client = store.client()
    client.create_model_version(NAME, tmp_path.as_uri())
    assert [verdict.version for verdict in promote(store, NAME)] == [good]
    # Neither does one that somebody made the champion.
    client.set_registered_model_alias(NAME, CHAMPION, "2")
    better = candidate(store, right=0.9)
    (verdict,) = promote(store, NAME)
    assert verdict.reason.startswith("not compared with champion 2")
    (verdict,) = promote(store, NAME, [better], replace_lost=True)
    assert verdict.promoted


def test_a_registered_model_that_was_deleted_begins_anew(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    run_id = run_of(store, old)
    promote(store, NAME)
    store.client().delete_registered_model(NAME)
    with pytest.raises(RegistryError, match="has no version; train one first"):
        promote(store, NAME)
    new = candidate(store, right=0.8)
    assert new == old
    # The number is the same, and the version is another.
    assert has_version(store, NAME, new, run_of(store, new))
    assert not has_version(store, NAME, old, run_id)
    assert promote(store, NAME)[0].promoted
    assert version_at(store, NAME, CHAMPION) is not None


def test_a_run_in_a_deleted_experiment_can_be_read(store: MlflowStore) -> None:
    old = candidate(store, right=0.8)
    client = store.client()
    found = client.get_experiment_by_name(NAME)
    assert found is not None
    client.delete_experiment(found.experiment_id)
    assert client.search_experiments(view_type=ViewType.DELETED_ONLY)
    assert promote(store, NAME)[0].promoted
    assert holder(store, CHAMPION) == old
    with pytest.raises(InvalidInputError, match="no run"):
        store.read_run("0" * 32)


@pytest.mark.parametrize("lost", [("first",), ("second",), ("first", "second")])
def test_a_report_is_made_although_runs_are_gone(
    lost: tuple[str, ...], store: MlflowStore, tmp_path: Path
) -> None:
    versions = {"first": candidate(store, right=0.6), "second": candidate(store, right=0.9)}
    client = store.client()
    for name, version in versions.items():
        client.set_model_version_tag(NAME, str(version), "head", name)
    client.set_registered_model_alias(NAME, CHAMPION, str(versions["first"]))
    runs = {name: run_of(store, version) for name, version in versions.items()}
    for name in lost:
        collect_garbage(store, versions[name])
    kept = [name for name in versions if name not in lost]
    found = gathered(store, tmp_path)
    assert [head.name for head in found.heads] == kept
    assert [row["version"] for row in found.gone] == [versions[name] for name in lost]
    assert set(found.predictions) == {versions[name] for name in kept}
    page = render(found)
    aliases = {"first": "champion", "second": "challenger"}
    for name in lost:
        said = f"version {versions[name]} ({name}, {aliases[name]}): run gone; MLflow has no run"
        assert f"{said} '{runs[name]}'" in found.missing
        assert said in page
    assert page.count('class="note">run gone</td>') == len(lost)
    assert all(runs[name] in page for name in kept)
    assert "train first" not in page
    assert 'id="coverage"' in page


def test_an_older_version_takes_the_place_of_one_whose_run_is_gone(
    store: MlflowStore, tmp_path: Path
) -> None:
    older, newer = candidate(store, right=0.6), candidate(store, right=0.9)
    collect_garbage(store, newer)
    found = gathered(store, tmp_path)
    assert [head.version for head in found.heads] == [older]
    assert [row["version"] for row in found.gone] == [newer]


@pytest.mark.parametrize("lose", [remove_files, damage_table])
def test_a_report_is_made_although_predictions_are_gone(
    lose: object, store: MlflowStore, tmp_path: Path
) -> None:
    version = candidate(store, right=0.6)
    lose(store, version)  # type: ignore[operator]
    found = gathered(store, tmp_path)
    assert [head.version for head in found.heads] == [version]
    assert f"the predictions of head (version {version}) are gone" in render(found)


def test_a_report_names_a_version_that_was_registered_without_a_run(
    store: MlflowStore, tmp_path: Path
) -> None:
    version = candidate(store, right=0.6)
    store.client().create_model_version(NAME, (tmp_path / "model").as_uri(), tags={"head": "own"})
    found = gathered(store, tmp_path)
    assert [head.version for head in found.heads] == [version]
    assert "version 2 (own): it was registered without a run" in render(found)


def gathered(store: MlflowStore, folder: Path) -> ReportData:
    videos = tuple(
        Video(video_id=f"v{n}", label=f"Task{n % 2}", subset="training", split="train")
        for n in range(4)
    )
    dataset = Dataset(name=NAME.removesuffix("-task"), videos=videos)
    with Ledger(f"sqlite:///{folder / 'ledger.db'}") as ledger:
        ledger.register(dataset)
        return gather(dataset, store=store, ledger=ledger, embeddings_root=str(folder / "sets"))
