"""Masks have the stated share, and hide what their kind says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coinml.errors import InvalidInputError
from coinml.pretraining.masking import Masking, MaskKind

SIDES = st.integers(1, 6)
KINDS: tuple[MaskKind, ...] = ("tube", "random", "frame")


@given(
    kind=st.sampled_from(KINDS),
    ratio=st.floats(0.05, 0.98),
    grid=st.tuples(st.integers(2, 8), SIDES, st.integers(2, 6)),
    seed=st.integers(0, 2**32),
)
def test_masks_have_the_stated_share(
    kind: MaskKind, ratio: float, grid: tuple[int, int, int], seed: int
) -> None:
    masking = Masking(kind=kind, ratio=ratio, grid=grid)
    mask = masking.draw(np.random.default_rng(seed))
    times, rows, columns = grid
    places = {"tube": rows * columns, "random": times * rows * columns, "frame": times}[kind]
    assert mask.shape == (times * rows * columns,)
    assert mask.sum() == masking.masked_tokens
    assert mask.mean() == pytest.approx(masking.masked_share)
    # Rounded to whole places, of which one at least is masked and one is visible.
    at_most, at_least = 1 - 1 / places, 1 / places
    assert abs(mask.mean() - np.clip(ratio, at_least, at_most)) <= 0.5 / places + 1e-9
    by_time = mask.reshape(times, rows * columns)
    if kind == "tube":
        assert (by_time == by_time[0]).all()
    if kind == "frame":
        assert (by_time == by_time[:, :1]).all()


def test_masks_of_another_seed_are_others() -> None:
    masking = Masking(kind="tube", ratio=0.9, grid=(8, 14, 14))
    masks = [masking.draw(np.random.default_rng(seed)).tobytes() for seed in (0, 0, 1)]
    assert masks[0] == masks[1] != masks[2]
    assert masking.masked_tokens == 8 * 176


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "block"}, "'block'"),
        ({"ratio": 1.0}, r"1\.0: must be above 0 and below 1"),
        ({"grid": (1, 4, 4), "kind": "frame"}, r"\(1, 4, 4\)"),
    ],
)
def test_what_cannot_be_masked_is_refused(values: dict[str, object], message: str) -> None:
    given_ = {"kind": "tube", "ratio": 0.9, "grid": (8, 4, 4), **values}
    with pytest.raises(InvalidInputError, match=message):
        Masking(**given_)  # type: ignore[arg-type]
