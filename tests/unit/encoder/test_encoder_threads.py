"""Batch sizes of the encoding threads, and the cores that they use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.encoder import encoder_threads
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.encoder_threads import EncoderThreads


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> ClipEncoder:
    return load_encoder(tiny_encoder_dir, device="cpu")


@pytest.mark.parametrize(("clips", "batch_clips"), [(1, 4), (12, 4), (13, 4), (96, 16), (7, 64)])
def test_the_last_batches_keep_all_threads_busy(
    encoder: ClipEncoder, clips: int, batch_clips: int
) -> None:
    with EncoderThreads(encoder, batch_clips=batch_clips, clips=clips) as threads:
        loads = [0] * threads.concurrent_batches
        remaining = clips
        while remaining:
            size = threads.next_batch_size(remaining)
            assert 1 <= size <= min(batch_clips, remaining)
            # The thread that is free first takes the batch.
            loads[loads.index(min(loads))] += size
            remaining -= size
        assert max(loads) - min(loads) <= 1


class _GpuEncoder:
    """The part of an encoder on a GPU that the threads use."""

    device = torch.device("cuda")

    def prepare(self, _: np.ndarray) -> int:
        return torch.get_num_threads()


def test_threads_of_a_gpu_encoder_use_one_core_each() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with EncoderThreads(_GpuEncoder(), batch_clips=4, clips=8) as threads:  # type: ignore[arg-type]
            assert threads.prepare([np.zeros(1, np.uint8)] * 2).result() == [1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


class _CpuEncoder:
    """The part of an encoder on a CPU that the threads use."""

    device = torch.device("cpu")

    def encode_prepared(self, *_: object, **__: object) -> int:
        return torch.get_num_threads()


@pytest.mark.parametrize(
    ("clips", "unfinished", "cores"), [(64, 64, 1), (64, 3, 2), (64, 1, 6), (2, 2, 3), (2, 1, 6)]
)
def test_the_last_clips_share_all_cores(
    clips: int, unfinished: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_threads, "cpu_count", lambda: 6)
    with EncoderThreads(_CpuEncoder(), batch_clips=1, clips=clips) as threads:  # type: ignore[arg-type]
        assert threads.encode([torch.ones(1)], unfinished=unfinished).result() == cores
