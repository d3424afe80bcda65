"""How jobs are split into shards, and which device a process uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.embedding import shards
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.shards import (
    LocalEmbedder,
    Shard,
    device_environment,
    expected_clips,
    load_encoder_once,
    split_jobs,
)
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.errors import LocalError


def jobs(count: int) -> list[EmbedJob]:
    return [EmbedJob(video_id=str(n), path=f"/none/{n}", file_sha256="") for n in range(count)]


@pytest.mark.parametrize(
    ("videos", "workers", "size", "sizes"),
    [
        (0, 1, None, []),
        (300, 1, None, [300]),
        (5000, 1, None, [2048, 2048, 904]),
        (20, 2, None, [20]),
        (100, 2, None, [32, 32, 32, 4]),
        (1600, 4, None, [100] * 16),
        (11_827, 1, 5000, [5000, 5000, 1827]),
    ],
)
def test_every_job_is_in_one_shard_and_each_process_gets_several_shards(
    videos: int, workers: int, size: int | None, sizes: list[int]
) -> None:
    split = split_jobs(jobs(videos), workers=workers, size=size)
    assert [len(shard) for shard in split] == sizes
    assert [job for shard in split for job in shard] == jobs(videos)


def test_a_process_sees_only_its_own_gpu() -> None:
    assert device_environment("cpu", {}) == {"COINML_DEVICE": "cpu"}
    assert device_environment("cuda:1", {}) == {
        "COINML_DEVICE": "cuda",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    # A process inherits the hiding and the order of this one's CUDA_VISIBLE_DEVICES.
    hidden = {"CUDA_VISIBLE_DEVICES": "5, GPU-8a6f"}
    assert device_environment("cuda:0", hidden)["CUDA_VISIBLE_DEVICES"] == "5"
    assert device_environment("cuda:1", hidden)["CUDA_VISIBLE_DEVICES"] == "GPU-8a6f"


def test_a_small_run_says_how_many_clips_it_has() -> None:
    options = SetOptions(encoder="tiny", clips=8)
    assert expected_clips(jobs(1), options, workers=1) == 8
    assert expected_clips(jobs(7), options, workers=2) == 32
    # From here on all runs choose alike, and a process loads its encoder once.
    assert expected_clips(jobs(8), options, workers=1) is None
    assert expected_clips(jobs(1000), options, workers=2) is None


def test_the_encoder_of_a_small_run_is_chosen_for_its_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def load(*_: object, **given: object) -> None:
        asked.append(given["expected_clips"])
        raise LocalError("enough")

    options = SetOptions(encoder="tiny", clips=8).resolved(mini=True)
    spec = options.spec("toy")
    EmbeddingSet.open(str(tmp_path), "toy", spec, create=True)
    (tmp_path / "0.mp4").touch()
    job = EmbedJob(video_id="0", path=str(tmp_path / "0.mp4"), file_sha256="0" * 64)
    shard = Shard(
        jobs=(job,),
        dataset="toy",
        fingerprint=spec.fingerprint,
        embeddings_root=str(tmp_path),
        set_options=options,
        expected_clips=expected_clips([job], options, workers=1),
    )
    load_encoder_once.cache_clear()
    # Only what it is asked for: which kernel is chosen for it is tested with the kernels.
    monkeypatch.setattr(shards, "load_encoder", load)
    with pytest.raises(LocalError, match="enough"):
        LocalEmbedder("cpu").embed(shard)
    assert asked == [8]


def test_a_machine_without_the_videos_is_a_local_error() -> None:
    shard = Shard(
        jobs=tuple(jobs(3)),
        dataset="toy",
        fingerprint="0" * 12,
        embeddings_root="/none",
        set_options=SetOptions(encoder="/none"),
    )
    with pytest.raises(LocalError, match="/none/0 is not on this machine, nor any other video"):
        LocalEmbedder("cpu").embed(shard)
