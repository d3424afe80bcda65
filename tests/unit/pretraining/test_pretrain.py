"""A pre-training sees training videos alone, resumes bit for bit, and gives an encoder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.errors import InvalidInputError, LocalError
from coinml.media import DecodePool
from coinml.pretraining.pretrain_report import PretrainReport
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.training_videos import collect, dataset, train

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def ledger_url(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> str:
    return collect(tmp_path_factory.mktemp("collected"), make_video)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, ledger_url: str, small_encoder: Path
) -> PretrainReport:
    """An undisturbed training."""
    return train(ledger_url, small_encoder, tmp_path_factory.mktemp("pretrained") / "kitchen")


def weights(checkpoint: str) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint) / "model.safetensors")


def assert_same(found: str, wanted: str) -> None:
    ours, theirs = weights(found), weights(wanted)
    assert ours.keys() == theirs.keys()
    assert ours
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


def test_resume_after_a_kill_gives_the_same_weights_bit_for_bit(
    tmp_path: Path, ledger_url: str, small_encoder: Path, trained: PretrainReport
) -> None:
    # Five videos and two a step: step 5 is in the middle of an epoch, and the newest checkpoint
    # is that of step 3.
    program = f"""
import os, signal
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.helpers.training_videos import train
def die(done, steps):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train({ledger_url!r}, Path({str(small_encoder)!r}), Path({str(tmp_path / "kitchen")!r}),
      on_step=die)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "kitchen").glob("kitchen-*")] == ["kitchen-000003"]
    steps: list[tuple[int, int]] = []
    report = train(
        ledger_url,
        small_encoder,
        tmp_path / "kitchen",
        on_step=lambda done, of: steps.append((done, of)),
    )
    assert (report.resumed_at, steps[0], steps[-1]) == (3, (4, 8), (8, 8))
    assert_same(report.checkpoint, trained.checkpoint)
    assert (report.first_loss, report.clips) == (trained.first_loss, trained.clips)
    again = train(ledger_url, small_encoder, tmp_path / "kitchen")
    assert (again.checkpoint, again.resumed_at, again.clips_per_s) == (report.checkpoint, 8, None)


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, ledger_url: str, small_encoder: Path
) -> None:
    left = tmp_path / "out" / ".out-000003.0123abcd.partial"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    train(ledger_url, small_encoder, tmp_path / "out", steps=1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "out-000001"}


def test_only_training_videos_are_decoded(
    tmp_path: Path, ledger_url: str, small_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    submit = DecodePool.submit_sample

    def noted(pool: DecodePool, path: Any, *args: Any, **kwargs: Any) -> Any:
        decoded.append(Path(path).stem)
        return submit(pool, path, *args, **kwargs)

    monkeypatch.setattr(DecodePool, "submit_sample", noted)
    train(ledger_url, small_encoder, tmp_path / "out", steps=5)
    training = {video.video_id for video in dataset().videos if video.split == "train"}
    assert set(decoded) == training
    # Besides the clips of the pictures, two epochs of five videos.
    assert sorted(decoded[4:]) == sorted([*training, *training])


def test_each_checkpoint_is_an_encoder_with_a_card(
    trained: PretrainReport, small_encoder: Path
) -> None:
    folder = Path(trained.checkpoint).parent
    names = ["kitchen-000003", "kitchen-000006", "kitchen-000008"]
    assert sorted(path.name for path in folder.glob("kitchen-*")) == names
    parent = find_checkpoint(small_encoder).spec()
    specs = [find_checkpoint(folder / name).spec() for name in names]
    assert len({parent.fingerprint, *(spec.fingerprint for spec in specs)}) == 4
    assert (specs[-1].crop, specs[-1].mean, specs[-1].pooling) == (
        parent.crop,
        parent.mean,
        parent.pooling,
    )
    vectors = load_encoder(trained.checkpoint, device="cpu").encode(
        [torch.zeros(16, 40, 40, 3, dtype=torch.uint8).numpy()]
    )
    assert vectors.shape == (1, 32)
    card = (Path(trained.checkpoint) / "README.md").read_text()
    record = json.loads((Path(trained.checkpoint) / "training.json").read_text())
    for stated in (
        "kitchen: 5 training videos",
        record["recipe"]["ids_digest"],
        record["ledger_digest"],
        parent.weights_sha256[:12],
        "tube, 75.0% of the tokens",
        "8 of 8, 4 clips each (2 crops of each decoded clip)",
        f"{trained.last_loss:.4f} at last",
    ):
        assert stated in card
    # The finished training needs no state to continue from.
    assert not list(folder.glob("*/training.pt"))


def test_another_training_in_the_folder_is_refused(
    tmp_path: Path, ledger_url: str, small_encoder: Path, trained: PretrainReport
) -> None:
    folder = Path(trained.checkpoint).parent
    with pytest.raises(InvalidInputError, match="with masking 'tube', and this one's is 'random'"):
        train(ledger_url, small_encoder, folder, masking="random")
    with FileLock(folder / ".lock"), pytest.raises(LocalError, match="another process"):
        train(ledger_url, small_encoder, folder)


def test_parts_of_a_step_have_the_gradient_of_the_whole(
    tmp_path: Path, ledger_url: str, small_encoder: Path
) -> None:
    reports = [
        train(
            ledger_url,
            small_encoder,
            tmp_path / f"{accumulate}-{again}",
            steps=3,
            dtype="float32",
            accumulate=accumulate,
            gradient_checkpointing=again,
        )
        for accumulate, again in ((1, False), (3, True))
    ]
    whole, parts = (weights(report.checkpoint) for report in reports)
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, atol=1e-5, rtol=1e-3)


def test_a_file_that_does_not_decode_is_named_and_stops_nothing(
    tmp_path: Path, make_video: Callable[..., Path], small_encoder: Path
) -> None:
    url = collect(tmp_path, make_video)
    broken, missing = tmp_path / "video000000.mp4", tmp_path / "video000002.mp4"
    broken.write_bytes(b"not a video")
    missing.unlink()
    report = train(url, small_encoder, tmp_path / "out", steps=5)
    assert set(report.failed) == {"video000000", "video000002"}
    # Of two epochs of five videos, three were seen twice, in two crops each.
    assert report.clips == 2 * 3 * 2
    assert (
        "| files that did not decode | 2 |" in (Path(report.checkpoint) / "README.md").read_text()
    )
    for path in tmp_path.glob("*.mp4"):
        path.write_bytes(b"not a video")
    with pytest.raises(InvalidInputError, match="none of the 5 training videos decodes"):
        train(url, small_encoder, tmp_path / "none", steps=20)


def test_a_run_has_curves_and_pictures_and_is_continued(
    tmp_path: Path,
    ledger_url: str,
    small_encoder: Path,
    store: MlflowStore,
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 15:
            raise StoppedError

    arguments: dict[str, Any] = {"steps": 24, "checkpoint_steps": 12, "store": store}
    with pytest.raises(StoppedError):
        train(ledger_url, small_encoder, tmp_path / "out", on_step=stop, **arguments)
    report = train(ledger_url, small_encoder, tmp_path / "out", **arguments)
    assert report.run_id is not None
    assert report.resumed_at == 12
    history = store.read_history(report.run_id).set_index("step")
    for name in ("loss", "lr", "grad_norm", "clips_per_s", "waited_share"):
        assert list(history[name].dropna().index) == [10, 20, 24]
    assert history["loss"].iloc[-1] == report.last_loss
    run = store.read_run(report.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["masking"] == "tube"
    assert not [name for name in run.data.metrics if not name.startswith("step/")]
    for step in (12, 24):
        assert store.read_figure(report.run_id, f"reconstructions-{step:06d}")
    [only] = store.client().search_runs([run.info.experiment_id])
    assert only.info.run_id == report.run_id
    shutil.rmtree(tmp_path / "out")
