"""What a run sets up once: decoding processes, threads beside a GPU, the writer of parts."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.embedding import shards
from coinml.embedding.encoder_threads import Lanes
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.kept_decoders import KeptDecoders
from coinml.embedding.part_writer import PartWriter
from coinml.embedding.shards import Shard, ThisProcess
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.media import ClipSpec, DecodePool

SPEC = ClipSpec(clips=1, frames=4, stride=1)


@pytest.fixture
def encoder(tiny_encoder_dir: Path) -> ClipEncoder:
    return load_encoder(tiny_encoder_dir, device="cpu")


@pytest.fixture
def video(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    return make_video(tmp_path / "video.mp4", seconds=0.5)


def use(pool: DecodePool, video: Path) -> list[int]:
    pool.submit_sample(video, SPEC).result()
    return pool.pids


def test_processes_stay_until_nobody_has_used_them_for_a_while(
    encoder: ClipEncoder, video: Path
) -> None:
    decoders = KeptDecoders(keep_s=0.5)
    with decoders.pool(encoder) as pool:
        first = use(pool, video)
    with decoders.pool(encoder) as again:
        assert again is pool
        assert use(again, video)[0] in first or len(again.pids) > 1
        with decoders.pool(encoder) as other:
            assert other is not pool
    begun = time.monotonic()
    while pool.pids and time.monotonic() - begun < 20:
        time.sleep(0.05)
    assert pool.pids == []
    with decoders.pool(encoder) as new:
        assert use(new, video)
    decoders.close()
    assert new.pids == []


def test_after_a_failure_others_are_started(encoder: ClipEncoder, video: Path) -> None:
    decoders = KeptDecoders()
    pools = []

    def fail() -> None:
        with decoders.pool(encoder) as pool:
            pools.append(pool)
            use(pool, video)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (pool,) = pools
    assert pool.pids == []
    with decoders.pool(encoder) as new:
        assert new is not pool
    decoders.close()


def test_shards_of_one_process_share_its_decoders(
    tmp_path: Path,
    tiny_encoder_dir: Path,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = []
    for seed in range(2):
        path = make_video(tmp_path / f"video{seed}.mp4", seconds=0.8, seed=seed)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        jobs.append(EmbedJob(video_id=path.stem, path=str(path), file_sha256=sha256))
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2, stride=1)
    encoder = shards.load_encoder_once(options, "cpu")
    root = str(tmp_path / "sets")
    made = EmbeddingSet.open(root, "toy", SetSpec(encoder=encoder.spec, dataset="toy"), create=True)
    pools: list[DecodePool] = []
    run = shards.engine.embed

    def embed(*arguments: object, pool: DecodePool, **options: object) -> object:
        pools.append(pool)
        return run(*arguments, pool=pool, **options)

    monkeypatch.setattr(shards.engine, "embed", embed)
    with ThisProcess("cpu") as here:
        for job in jobs:
            report = here.embed(
                Shard(
                    jobs=(job,),
                    dataset="toy",
                    fingerprint=made.spec.fingerprint,
                    embeddings_root=root,
                    set_options=options,
                )
            )
            assert (report.embedded, report.failed) == (1, {})
        assert pools[0] is pools[1]
        assert pools[0].pids
    assert pools[0].pids == []


class _OnGpu:
    """What the threads need of an encoder, as if it were on a GPU."""

    device = torch.device("cuda")

    def prepare(self, _: np.ndarray) -> int:
        return torch.get_num_threads()


def test_beside_a_gpu_a_copy_takes_one_processor() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with Lanes(_OnGpu(), batch_clips=4, clips=8) as lanes:  # type: ignore[arg-type]
            assert lanes.prepare([np.zeros(1, np.uint8)] * 2).result() == [1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_what_writes_parts_is_loaded_before_the_first_video(
    tmp_path: Path, encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SetSpec(encoder=encoder.spec, dataset="toy")
    made = EmbeddingSet.open(str(tmp_path), "toy", spec, create=True)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with PartWriter(made, part_videos=1):
        assert "pyarrow.parquet" in sys.modules
