"""An encoder's use of memory, devices and number types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.encoder import clip_encoder
from coinml.encoder.backbone import Backbone
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.errors import InvalidInputError, LocalError


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 16, 36, 48, 3), dtype=np.uint8)


class _LimitedMemory:
    """A backbone whose device has memory for only a few clips."""

    def __init__(self, inner: Backbone, *, most: int, error: Exception) -> None:
        self.inner = inner
        self.tokens, self.width = inner.tokens, inner.width
        self.most = most
        self.error = error
        self.sizes: list[int] = []

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(pixels))
        if len(pixels) > self.most:
            raise self.error
        return self.inner(pixels)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_continues(
    tiny_encoder_dir: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    clips = np.random.default_rng(0).integers(0, 255, (11, 16, 32, 32, 3), dtype=np.uint8)
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    whole = encoder.encode(clips, batch_clips=11)
    limited = encoder._backbone = _LimitedMemory(encoder._backbone, most=3, error=error)
    np.testing.assert_allclose(encoder.encode(clips, batch_clips=11), whole, atol=1e-5)
    assert limited.sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert "out of memory on cpu: continuing with 2 clips per batch" in caplog.text
    # Later batches have the smaller size from the start, also if a larger one is given.
    assert encoder.batch_clips == 2
    limited.sizes.clear()
    encoder.encode(clips, batch_clips=11)
    assert max(limited.sizes) == 2
    limited.most = 0
    with pytest.raises(LocalError, match="not even one clip"):
        encoder.encode(clips)


def test_a_clip_waits_for_memory_while_batches_shrink(
    tiny_encoder_dir: Path,
    clips: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    expected = encoder.prepare(clips[0])
    full = encoder.batch_clips
    upload, waited = encoder._queue.upload, []
    failures = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()]

    def limited(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return upload(*arguments)

    monkeypatch.setattr(encoder._queue, "upload", limited)
    monkeypatch.setattr(clip_encoder.time, "sleep", waited.append)
    assert torch.equal(encoder.prepare(clips[0]), expected)
    assert waited == [1.0]
    assert encoder.batch_clips == full // 2
    assert "out of memory on cpu" in caplog.text
    failures[:] = [MemoryError()] * 9
    with pytest.raises(LocalError, match="frames of one clip do not fit the memory of cpu"):
        encoder.prepare(clips[0])
    failures[:] = [RuntimeError("a shape is wrong")]
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        encoder.prepare(clips[0])


def test_another_error_of_the_model_is_not_an_out_of_memory_error(
    tiny_encoder_dir: Path, clips: np.ndarray
) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    encoder._backbone = _LimitedMemory(
        encoder._backbone, most=0, error=RuntimeError("a shape is wrong")
    )
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        encoder.encode(clips)
    assert encoder._backbone.sizes == [3]


def test_a_batch_creates_no_tensor_from_python_numbers(
    tiny_encoder_dir: Path, clips: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a GPU this would wait for the queued batches.
    encoder = load_encoder(tiny_encoder_dir, device="cpu", sampling=Sampling(keep_tokens=0.5))
    first = encoder.encode(clips)
    monkeypatch.setattr(torch, "tensor", None)
    monkeypatch.setattr(torch, "as_tensor", None)
    np.testing.assert_array_equal(encoder.encode(clips), first)


def test_position_tables_and_token_indices_follow_the_model(tiny_encoder_dir: Path) -> None:
    encoder = load_encoder(
        tiny_encoder_dir, device="cpu", dtype="bfloat16", sampling=Sampling(keep_tokens=0.5)
    )
    model = encoder._backbone._run.model
    assert model.embeddings.embeddings.position_embeddings.dtype == torch.bfloat16
    assert dict(model.named_buffers())["embeddings.kept"].shape == (16,)
    assert "embeddings.kept" not in model.state_dict()


def test_an_unknown_device_or_dtype_is_refused(tiny_encoder_dir: Path) -> None:
    with pytest.raises(InvalidInputError, match="device 'abacus': say auto"):
        load_encoder(tiny_encoder_dir, device="abacus")
    with pytest.raises(InvalidInputError, match="dtype 'float8' is unknown; known: auto"):
        load_encoder(tiny_encoder_dir, dtype="float8")
    with pytest.raises(InvalidInputError, match="cuda:99"):
        load_encoder(tiny_encoder_dir, device="cuda:99")
