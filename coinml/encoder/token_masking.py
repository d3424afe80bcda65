"""Which tokens an encoder sees if it does not see all: the same positions in every frame."""

from __future__ import annotations

import hashlib
import math

from coinml.errors import InvalidInputError


def checked_masking(keep_tokens: float, keep_seed: int) -> tuple[float, int]:
    """Share of the tokens to keep and seed, checked and normalised for a spec.

    If all tokens are kept the seed has no effect and becomes 0, so that equal encoders have equal
    fingerprints.

    Raises:
        InvalidInputError: The share is not above 0 and at most 1, or the seed is not an integer
            of at least 0.
    """
    if isinstance(keep_tokens, bool) or not isinstance(keep_tokens, int | float):
        raise InvalidInputError(f"keep_tokens is {keep_tokens!r}; it must be a number")
    if not (math.isfinite(keep_tokens) and 0 < keep_tokens <= 1):
        raise InvalidInputError(
            f"keep_tokens is {keep_tokens:g}; it must be above 0 and at most 1 (1 keeps all)"
        )
    if isinstance(keep_seed, bool) or not isinstance(keep_seed, int) or keep_seed < 0:
        raise InvalidInputError(f"keep_seed is {keep_seed!r}; it must be an integer, 0 or greater")
    return float(keep_tokens), 0 if keep_tokens == 1 else keep_seed


def kept_positions(positions: int, *, keep_tokens: float, keep_seed: int) -> list[int]:
    """Select the spatial positions that are kept in all frames (VideoMAE's tube masking).

    Positions are ranked by hashes and not by a library's random numbers, so that the selection is
    the same on every machine and with every version: otherwise vectors would not be comparable.

    Args:
        positions: Number of token positions in one frame.
        keep_tokens: Share of them that is kept; at least one position is.
        keep_seed: Seed of the selection.

    Returns:
        Ascending indices of positions, in row-major order.
    """
    kept = max(1, round(positions * keep_tokens))
    ranked = sorted(
        range(positions),
        key=lambda position: hashlib.sha256(f"{keep_seed}:{position}".encode()).digest(),
    )
    return sorted(ranked[:kept])
