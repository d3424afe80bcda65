"""Full disks, damaged checkpoints, a growing collection and kills at odd moments."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import FileFacts, Ledger
from coinml.pretraining import training_loop
from coinml.pretraining.pretrain_report import PretrainReport
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.training_videos import collect, dataset, train


class StoppedError(Exception):
    """Stands for a kill between two steps."""


def stop_at(step: int) -> Callable[[int, int], None]:
    def stop(done: int, _: int) -> None:
        if done == step:
            raise StoppedError

    return stop


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("collected")
    collect(folder, make_video)
    return folder


@pytest.fixture(scope="module")
def ledger_url(collected: Path) -> str:
    return f"sqlite:///{collected / 'ledger.db'}"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, ledger_url: str, small_encoder: Path) -> Path:
    """The checkpoints of a training of four steps that was stopped after the third."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.raises(StoppedError):
        train(ledger_url, small_encoder, out, steps=4, on_step=stop_at(3))
    return out


@pytest.fixture
def copy(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "out"))


def file_of(ledger: Ledger, video_id: str) -> FileFacts:
    [row] = [row for row in ledger.rows_of(dataset()) if row.video_id == video_id]
    assert row.path
    assert row.size_bytes
    assert row.sha256
    return FileFacts(path=row.path, size_bytes=row.size_bytes, sha256=row.sha256)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Writes beyond this size fail, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_leaves_no_half_checkpoint(
    copy: Path, ledger_url: str, small_encoder: Path
) -> None:
    newest = copy / "out-000003"
    weights, state = (
        (newest / name).stat().st_size for name in ("model.safetensors", "training.pt")
    )
    assert weights < state
    for size in (weights // 2, (weights + state) // 2):
        with (
            largest_file(size),
            pytest.raises(LocalError, match="cannot be written, is the disk full"),
        ):
            train(ledger_url, small_encoder, copy.with_name(f"{size}"), steps=4, checkpoint_steps=1)
        assert [path.name for path in copy.with_name(f"{size}").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "content", [b"", b"not a state", "cut", {}, {"optimizer": {}, "schedule": {}}]
)
def test_a_damaged_training_state_is_refused(
    content: Any, copy: Path, ledger_url: str, small_encoder: Path
) -> None:
    path = copy / "out-000003" / "training.pt"
    if isinstance(content, dict):
        torch.save(content, path)
    else:
        path.write_bytes(path.read_bytes()[:-2000] if content == "cut" else content)
    with pytest.raises(InvalidInputError, match=r"training state|no state to continue from"):
        train(ledger_url, small_encoder, copy, steps=4)


@pytest.mark.parametrize(
    ("name", "value"), [("step", "three"), ("recipe", []), ("losses", None), ("clips", "many")]
)
def test_a_damaged_record_is_refused(
    name: str, value: object, copy: Path, ledger_url: str, small_encoder: Path
) -> None:
    path = copy / "out-000003" / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(InvalidInputError, match="not the record of a pre-training"):
        train(ledger_url, small_encoder, copy, steps=4)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.json"])
def test_a_checkpoint_without_one_of_its_files_is_refused(
    name: str, copy: Path, ledger_url: str, small_encoder: Path
) -> None:
    (copy / "out-000003" / name).unlink()
    with pytest.raises(InvalidInputError, match="out-000003"):
        train(ledger_url, small_encoder, copy, steps=4)


def test_a_kill_after_the_last_checkpoint_is_tidied(
    tmp_path: Path, ledger_url: str, small_encoder: Path, store: MlflowStore
) -> None:
    def call() -> PretrainReport:
        return train(
            ledger_url, small_encoder, tmp_path / "out", steps=2, checkpoint_steps=1, store=store
        )

    report = call()
    assert report.run_id is not None
    left = tmp_path / "out" / "out-000001" / "training.pt"
    left.write_bytes(b"what the kill left")
    store.client().update_run(report.run_id, status="RUNNING")
    again = call()
    assert (again.checkpoint, again.clips_per_s) == (report.checkpoint, None)
    assert not left.exists()
    assert store.read_run(report.run_id).info.status == "FINISHED"


def test_a_training_goes_on_with_its_videos_while_the_collection_grows(
    tmp_path: Path, make_video: Callable[..., Path], small_encoder: Path
) -> None:
    url = collect(tmp_path, make_video)
    late = "video000006"
    with Ledger(url) as ledger:
        file = file_of(ledger, late)
        ledger.forget("kitchen", late, "collected later")
        whole = train(url, small_encoder, tmp_path / "whole", steps=4)
        with pytest.raises(StoppedError):
            train(url, small_encoder, tmp_path / "out", steps=4, on_step=stop_at(3))
        ledger.record_success("kitchen", late, file=file, attempt=None)
    report = train(url, small_encoder, tmp_path / "out", steps=4)
    assert (report.resumed_at, report.videos) == (3, whole.videos) == (3, 4)
    for name, weight in load_file(Path(whole.checkpoint) / "model.safetensors").items():
        assert torch.equal(weight, load_file(Path(report.checkpoint) / "model.safetensors")[name])
    # A finished training says that it has not seen the video.
    with pytest.raises(InvalidInputError, match="4 videos, and now there are 5"):
        train(url, small_encoder, tmp_path / "out", steps=4)


def test_a_training_without_one_of_its_videos_is_refused(
    copy: Path, ledger_url: str, small_encoder: Path
) -> None:
    with Ledger(ledger_url) as ledger:
        lost = "video000006"
        file = file_of(ledger, lost)
        ledger.forget("kitchen", lost, "lost")
        try:
            with pytest.raises(InvalidInputError, match="5 videos, and now there are 4"):
                train(ledger_url, small_encoder, copy, steps=4)
        finally:
            ledger.record_success("kitchen", lost, file=file, attempt=None)


def test_a_training_stops_when_its_disk_is_gone(
    tmp_path: Path,
    make_video: Callable[..., Path],
    small_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training_loop, "_FAILED_IN_A_ROW", 3)
    url = collect(tmp_path / "disk", make_video)

    def unmount(done: int, _: int) -> None:
        if done == 2:
            (tmp_path / "disk").rename(tmp_path / "gone")

    with pytest.raises(LocalError, match="videos do not decode, such as video0"):
        train(url, small_encoder, tmp_path / "out", checkpoint_steps=1, on_step=unmount)
