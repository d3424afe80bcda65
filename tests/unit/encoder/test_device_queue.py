"""Uploads and pinned memory with stand-ins for CUDA; `test_encoder_cuda.py` uses a GPU."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from coinml.encoder import device_queue
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.device_queue import DeviceQueue, pin
from coinml.encoder.preprocessing import Preprocessor

GPU = torch.device("cuda")


class _Frames:
    """A tensor that logs its copies."""

    def __init__(self, log: list[str], *, pinned: bool) -> None:
        self.log = log
        self.shape, self.dtype = (2, 4, 4, 3), torch.uint8
        self._pinned = pinned

    def is_pinned(self) -> bool:
        return self._pinned

    def copy_(self, _: _Frames) -> _Frames:
        self.log.append("copied to pinned memory")
        return self

    def to(self, device: torch.device, *, non_blocking: bool) -> str:
        self.log.append(f"sent to {device}{'' if non_blocking else ', waiting'}")
        return "there"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations on the stand-in device."""
    log: list[str] = []
    numbers = iter(range(100))
    monkeypatch.setattr(device_queue, "_new_stream", lambda _: f"stream {next(numbers)}")
    event = SimpleNamespace(synchronize=lambda: log.append("waited for"))
    monkeypatch.setattr(device_queue, "_record_event", lambda _: event)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: _Frames(log, pinned=True))
    return log


@pytest.mark.parametrize("pinned", [True, False])
def test_only_frames_in_unpinned_memory_are_copied_to_pinned_memory(
    log: list[str], pinned: bool
) -> None:
    result = DeviceQueue(GPU).upload(_Frames(log, pinned=pinned), lambda there: (there, "resized"))
    assert result == ("there", "resized")
    first = [] if pinned else ["copied to pinned memory"]
    assert log == [*first, "sent to cuda", "waited for"]


def test_a_stream_is_reused_and_never_shared_by_two_threads(log: list[str]) -> None:
    queue = DeviceQueue(GPU)
    with queue._idle_stream() as first, queue._idle_stream() as second:
        assert first != second
    for _ in range(5):
        queue.upload(_Frames(log, pinned=True), str)
        with queue._idle_stream() as again:
            assert again in (first, second)
    with pytest.raises(ZeroDivisionError):
        queue.upload(_Frames(log, pinned=True), lambda _: 1 / 0)
    assert queue._idle_streams.qsize() == 2


@pytest.mark.parametrize("allowed", [True, False])
def test_pinned_memory_is_registered_and_unregistered(
    log: list[str], monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    calls: list[tuple[object, ...]] = []
    runtime = SimpleNamespace(
        cudaError=SimpleNamespace(success=0),
        cudaHostRegister=lambda *call: calls.append(call) or (0 if allowed else 801),
        cudaHostUnregister=lambda *call: calls.append(call) or 0,
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    with mmap.mmap(-1, 8192) as memory:
        release = pin(GPU, memory)
        address = np.frombuffer(memory, dtype=np.uint8).ctypes.data
        assert calls == [(address, 8192, 1)]
        if not allowed:
            assert release is None
            return
        assert release is not None
        release()
        assert calls[1:] == [(address,)]


def test_an_encoder_on_a_cpu_pins_nothing(tiny_encoder_dir: Path) -> None:
    with mmap.mmap(-1, 4096) as memory:
        assert load_encoder(tiny_encoder_dir, device="cpu").pin(memory) is None


@pytest.mark.parametrize("size", [(20, 30), (48, 44), (31, 90), (90, 31)])
def test_resized_frames_have_the_same_shape_on_every_device(size: tuple[int, int]) -> None:
    preprocessor = Preprocessor(resize=40, crop=(48, 44))
    frames = torch.zeros((2, *size, 3), dtype=torch.uint8)
    other = preprocessor.resized(frames.to("meta"))
    assert other.shape == preprocessor.resized(frames).shape == (2, 3, 48, 44)
    assert other.is_contiguous()
