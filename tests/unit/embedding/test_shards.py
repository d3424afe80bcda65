"""How work is dealt out, and which device a process gets."""

from __future__ import annotations

import pytest

from coinml.embedding.jobs import EmbedJob
from coinml.embedding.shards import Shard, ThisProcess, deal, device_environment
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
def test_every_job_is_in_one_shard_and_each_process_gets_several(
    videos: int, workers: int, size: int | None, sizes: list[int]
) -> None:
    dealt = deal(jobs(videos), workers=workers, size=size)
    assert [len(shard) for shard in dealt] == sizes
    assert [job for shard in dealt for job in shard] == jobs(videos)


def test_a_process_sees_its_own_gpu_alone() -> None:
    assert device_environment("cpu", {}) == {"COINML_DEVICE": "cpu"}
    assert device_environment("cuda:1", {}) == {
        "COINML_DEVICE": "cuda",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    # What hides and orders the GPUs for this process does so for its own too.
    hidden = {"CUDA_VISIBLE_DEVICES": "5, GPU-8a6f"}
    assert device_environment("cuda:0", hidden)["CUDA_VISIBLE_DEVICES"] == "5"
    assert device_environment("cuda:1", hidden)["CUDA_VISIBLE_DEVICES"] == "GPU-8a6f"


def test_a_machine_that_sees_no_video_says_so_and_blames_none() -> None:
    shard = Shard(
        jobs=tuple(jobs(3)),
        dataset="toy",
        fingerprint="0" * 12,
        embeddings_root="/none",
        set_options=SetOptions(encoder="/none"),
    )
    with pytest.raises(LocalError, match="/none/0 is not here, nor any other video"):
        ThisProcess("cpu").embed(shard)
