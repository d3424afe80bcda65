"""The encoder and the engine on a GPU; skipped without one.

With COINML_FAIL_WITHOUT_CUDA=1 they fail without a GPU, so that a CI job for a GPU cannot pass by
skipping.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling

FAIL_WITHOUT_CUDA = os.environ.get("COINML_FAIL_WITHOUT_CUDA") == "1"


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        if FAIL_WITHOUT_CUDA:
            pytest.fail("CUDA is not available, and COINML_FAIL_WITHOUT_CUDA is 1")
        pytest.skip("CUDA is not available; COINML_FAIL_WITHOUT_CUDA=1 makes this a failure")


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (5, 16, 90, 120, 3), dtype=np.uint8)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_frames_are_resized_as_on_a_cpu(tiny_encoder_dir: Path, clips: np.ndarray) -> None:
    on_gpu = load_encoder(tiny_encoder_dir, device="cuda").prepare(clips[0])
    on_cpu = load_encoder(tiny_encoder_dir, device="cpu").prepare(clips[0])
    assert on_gpu.device.type == "cuda"
    apart = (on_gpu.cpu().int() - on_cpu.int()).abs()
    assert apart.max() <= 1
    # The CPU's fixed-point weights may round halves either way. Rounding once instead of after
    # each axis, an earlier error, gives 0.116 on this noise.
    assert apart.float().mean() < 0.02
    assert on_gpu.untyped_storage().nbytes() == on_gpu.nbytes


@pytest.mark.parametrize(
    ("dtype", "least"), [("float32", 0.9999), ("bfloat16", 0.999), ("float16", 0.999)]
)
@pytest.mark.parametrize("keep_tokens", [1.0, 0.5])
def test_vectors_equal_those_of_a_cpu(
    tiny_encoder_dir: Path, clips: np.ndarray, dtype: str, least: float, keep_tokens: float
) -> None:
    sampling = Sampling(keep_tokens=keep_tokens)
    expected = load_encoder(tiny_encoder_dir, device="cpu", sampling=sampling).encode(clips)
    encoder = load_encoder(tiny_encoder_dir, device="cuda", dtype=dtype, sampling=sampling)
    assert cosine(encoder.encode(clips), expected).min() > least
    assert cosine(encoder.encode(clips, batch_clips=2), expected).min() > least


def test_a_launch_does_not_wait_for_the_gpu(tiny_encoder_dir: Path, clips: np.ndarray) -> None:
    for keep_tokens in (1.0, 0.5):
        encoder = load_encoder(
            tiny_encoder_dir, device="cuda", sampling=Sampling(keep_tokens=keep_tokens)
        )
        pictures = [encoder.prepare(clip) for clip in clips]
        encoder.encode_prepared(pictures)
        torch.cuda.set_sync_debug_mode("error")
        try:
            encoder.encode_prepared([encoder.prepare(clip) for clip in clips])
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_frames_in_pinned_memory_are_uploaded_directly(
    tiny_encoder_dir: Path, clips: np.ndarray
) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cuda")
    memory = mmap.mmap(-1, clips.nbytes)
    frames = np.frombuffer(memory, dtype=np.uint8).reshape(clips.shape)
    frames[:] = clips
    assert not torch.from_numpy(frames).is_pinned()
    release = encoder.pin(memory)
    assert release is not None
    assert torch.from_numpy(frames[2]).is_pinned()
    prepared = encoder.prepare(frames[2])
    release()
    assert not torch.from_numpy(frames).is_pinned()
    assert torch.equal(prepared, encoder.prepare(clips[2]))


def test_out_of_memory_halves_the_batch(
    tiny_encoder_dir: Path, clips: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    many = np.concatenate([clips] * 60)
    encoder = load_encoder(tiny_encoder_dir, device="cuda")
    expected = encoder.encode(many)
    pictures = [encoder.prepare(clip) for clip in many]
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    room = torch.cuda.memory_reserved() + (24 << 20)
    torch.cuda.set_per_process_memory_fraction(room / total)
    try:
        found = encoder.encode_prepared(pictures, batch_clips=len(pictures))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory on cuda" in caplog.text
    assert cosine(found, expected).min() > 0.999


def test_the_engines_vectors_equal_those_of_a_cpu(
    tmp_path: Path, tiny_encoder_dir: Path, make_video: Callable[..., Path]
) -> None:
    jobs = []
    for seed in range(6):
        path = make_video(tmp_path / f"video{seed}.mp4", seconds=1.5, seed=seed)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        jobs.append(EmbedJob(video_id=path.stem, path=str(path), file_sha256=sha256))
    tables = {}
    for device in ("cpu", "cuda"):
        encoder = load_encoder(
            tiny_encoder_dir, device=device, sampling=Sampling(clips=3, stride=2)
        )
        spec = SetSpec(encoder=encoder.spec, dataset="mini")
        embeddings = EmbeddingSet.open(str(tmp_path / device), "mini", spec, create=True)
        report = embed(jobs, encoder, embeddings, workers=2)
        assert (report.embedded, report.failed) == (6, {})
        tables[device] = embeddings
    keys = ["video_id", "file_sha256", "clip", "timestamps_s", "frames_decoded"]
    assert tables["cpu"].clips(keys).equals(tables["cuda"].clips(keys))
    vectors = [table.videos().filter(regex=r"^e\d").to_numpy() for table in tables.values()]
    assert cosine(*vectors).min() > 0.999
