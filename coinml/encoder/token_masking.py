"""Which tokens an encoder sees where it is not given all: the same places in every frame."""

from __future__ import annotations

import hashlib
import math

from coinml.errors import InvalidInputError


def checked_share(keep_tokens: float, keep_seed: int) -> tuple[float, int]:
    """A share of the tokens and a seed as a spec holds them.

    Without a choice the seed means nothing and is 0, so that one meaning has one fingerprint.

    Raises:
        InvalidInputError: The share is not above 0 and at most 1, or the seed not a whole number
            from 0 on.
    """
    if isinstance(keep_tokens, bool) or not isinstance(keep_tokens, int | float):
        raise InvalidInputError(f"keep_tokens is {keep_tokens!r}; it must be a number")
    if not (math.isfinite(keep_tokens) and 0 < keep_tokens <= 1):
        raise InvalidInputError(
            f"keep_tokens is {keep_tokens:g}; it must be above 0 and at most 1 (1 keeps all)"
        )
    if isinstance(keep_seed, bool) or not isinstance(keep_seed, int) or keep_seed < 0:
        raise InvalidInputError(
            f"keep_seed is {keep_seed!r}; it must be a whole number, 0 or greater"
        )
    return float(keep_tokens), 0 if keep_tokens == 1 else keep_seed


def kept_places(places: int, *, keep_tokens: float, keep_seed: int) -> list[int]:
    """Choose the tubes that are kept, as VideoMAE's pre-training masks them: over all frames.

    The choice is made by hashes and by no library's random numbers, so that it is the same on
    every machine and with every version, as vectors that are to be compared need it.

    Args:
        places: Number of token places in one frame.
        keep_tokens: Part of them that is kept; never less than one place.
        keep_seed: Another seed keeps other places.

    Returns:
        Ascending numbers of places, row by row.
    """
    kept = max(1, round(places * keep_tokens))
    ranked = sorted(
        range(places), key=lambda place: hashlib.sha256(f"{keep_seed}:{place}".encode()).digest()
    )
    return sorted(ranked[:kept])
