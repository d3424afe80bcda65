"""Shared memory of decoded frames, which is not reused while an array refers to it."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml import media
from coinml.media.frame_memory import Borrower, Lender, Pin

SPEC = media.ClipSpec(clips=2, frames=4, stride=2)


class _Pair:
    """Both ends in one process, as a worker and its pool use them."""

    def __init__(self, pin: Pin | None = None) -> None:
        self.lender = Lender()
        self.borrower = Borrower(pin)

    def frames(self, shape: tuple[int, ...], value: int) -> np.ndarray:
        self.lender.take_back(self.borrower.given_back())
        self.lender.allocate(shape)[:] = value
        fields, descriptor = self.lender.lend()
        loan = self.borrower.borrow(fields, descriptor, size=int(np.prod(shape)))
        self.lender.sent()
        return np.frombuffer(loan, dtype=np.uint8).reshape(shape)

    def blocks(self) -> int:
        return len(self.borrower._blocks)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_block_is_reused_only_after_it_is_given_back() -> None:
    pair = _Pair()
    held = [pair.frames((2, 8), value) for value in range(2)]
    views = [torch.from_numpy(held[0])[1], held[1][:, 3:5].T]
    del held
    gc.collect()
    for value in range(10, 30):
        assert (pair.frames((2, 8), value) == value).all()
    assert [int(view.max()) for view in views] == [int(view.min()) for view in views] == [0, 1]
    assert pair.blocks() == 3
    views.clear()
    gc.collect()
    before = _descriptors()
    for value in range(5):
        assert (pair.frames((2, 8), value) == value).all()
    assert (pair.blocks(), _descriptors()) == (3, before)


def test_frames_in_use_are_never_overwritten() -> None:
    pair = _Pair()
    held = [pair.frames((5, 7), value) for value in range(12)]
    assert [int(frames.min()) for frames in held] == list(range(12))
    assert [int(frames.max()) for frames in held] == list(range(12))
    assert pair.blocks() == 3
    del held
    before = _descriptors()
    assert (pair.frames((5, 7), 99) == 99).all()
    assert _descriptors() == before


@pytest.mark.parametrize("other", [(100, 100), (3, 1)])
def test_a_block_that_does_not_fit_is_dropped_on_both_sides(other: tuple[int, ...]) -> None:
    pair = _Pair()
    pair.frames((10, 10), 1)
    before = _descriptors()
    assert (pair.frames(other, 2) == 2).all()
    assert (pair.blocks(), _descriptors()) == (1, before)


def test_a_block_is_reused_for_smaller_frames() -> None:
    pair = _Pair()
    pair.frames((10, 10), 1)
    assert (pair.frames((5, 10), 2) == 2).all()
    assert pair.lender._made == 1


def test_a_kept_block_is_pinned_once_and_released_before_it_is_unmapped() -> None:
    pinned: list[int] = []
    released: list[int] = []

    def pin(memory: mmap.mmap) -> Callable[[], None]:
        pinned.append(len(memory))
        return lambda: released.append(memory[0])

    pair = _Pair(pin)
    for value in range(1, 5):
        assert (pair.frames((10, 10), value) == value).all()
    assert (pinned, released) == ([100], [])
    last = pair.frames((10, 10), 9)
    # The block is replaced by a larger one while an array still refers to it.
    pair.lender.take_back(pair.borrower.given_back())
    held = [last, *[pair.frames((30, 30), value) for value in (11, 12, 13)]]
    # Three blocks are kept; the fourth is not, so it is not pinned.
    assert pinned == [100, 900, 900]
    pair.borrower = Borrower()
    gc.collect()
    assert released == []
    del last
    held.clear()
    gc.collect()
    assert sorted(released) == [9, 11, 12]


def test_a_pin_without_a_release_is_allowed() -> None:
    pair = _Pair(lambda _: None)
    assert (pair.frames((10, 10), 3) == 3).all()


def test_a_large_block_is_not_kept() -> None:
    pair = _Pair()
    before = _descriptors()
    frames = pair.frames((300, 1 << 20), 1)
    assert (pair.blocks(), _descriptors()) == (0, before + 1)
    assert frames[-1, -1] == 1
    del frames
    gc.collect()
    assert _descriptors() == before


def test_a_block_allocated_for_a_failed_answer_is_reused() -> None:
    pair = _Pair()
    pair.frames((4, 4), 1)
    before = _descriptors()
    for _ in range(5):
        pair.lender.take_back(pair.borrower.given_back())
        pair.lender.allocate((4, 4))
        pair.lender.allocate((9, 9))
        pair.lender.keep_back()
    assert (pair.frames((4, 4), 2) == 2).all()
    assert (pair.blocks(), _descriptors()) == (1, before)


def test_a_pool_maps_no_more_than_it_needs(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    # Other tests of this process may have a pool of their own.
    before = Path("/proc/self/maps").read_text().count("memfd:coinml-clips")
    path = make_video(tmp_path / "video.mp4")
    expected = media.sample(path, SPEC).frames
    with media.DecodePool(workers=1) as pool:
        held = [pool.submit_sample(path, SPEC).result() for _ in range(6)]
        for _ in range(12):
            np.testing.assert_array_equal(pool.submit_sample(path, SPEC).result().frames, expected)
        (pid,) = pool.pids
        # Three blocks, and perhaps one not kept that is not unmapped yet.
        assert Path(f"/proc/{pid}/maps").read_text().count("memfd:coinml-clips") <= 4
    # The frames outlive the pool.
    for clips in held:
        np.testing.assert_array_equal(clips.frames, expected)
    del held, clips
    gc.collect()
    assert Path("/proc/self/maps").read_text().count("memfd:coinml-clips") <= before
