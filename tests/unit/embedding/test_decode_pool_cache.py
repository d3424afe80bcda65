"""Decoding processes are reused from shard to shard and closed when they are idle."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coinml.embedding import shards
from coinml.embedding.decode_pool_cache import DecodePoolCache
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.shards import LocalEmbedder, Shard
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


def test_a_pool_is_reused_and_closed_when_it_is_idle(encoder: ClipEncoder, video: Path) -> None:
    cache = DecodePoolCache(keep_s=0.5)
    with cache.pool(encoder) as pool:
        first = use(pool, video)
    with cache.pool(encoder) as again:
        assert again is pool
        assert use(again, video)[0] in first or len(again.pids) > 1
        with cache.pool(encoder) as other:
            assert other is not pool
    begun = time.monotonic()
    while pool.pids and time.monotonic() - begun < 20:
        time.sleep(0.05)
    assert pool.pids == []
    with cache.pool(encoder) as new:
        assert use(new, video)
    cache.close()
    assert new.pids == []


def test_a_failed_block_closes_its_pool(encoder: ClipEncoder, video: Path) -> None:
    cache = DecodePoolCache()
    pools = []

    def fail() -> None:
        with cache.pool(encoder) as pool:
            pools.append(pool)
            use(pool, video)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (pool,) = pools
    assert pool.pids == []
    with cache.pool(encoder) as new:
        assert new is not pool
    cache.close()


def test_shards_of_one_process_share_its_decode_pool(
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
    with LocalEmbedder("cpu") as here:
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
