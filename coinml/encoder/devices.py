"""Where an encoder computes and in which type."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The type of a name: what is fastest on a device for `auto`, or what is named.

    Raises:
        InvalidInputError: There is no such type.
    """
    import torch

    if name not in DTYPES:
        raise InvalidInputError(f"dtype {name!r} is unknown; known: {', '.join(DTYPES)}")
    if name != "auto":
        found = getattr(torch, name)
        assert isinstance(found, torch.dtype)
        return found
    if device.type == "cuda":
        with torch.cuda.device(device):
            # Older GPUs emulate bfloat16, slowly; they have units for float16.
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and bfloat16_pays():
        return torch.bfloat16
    return torch.float32


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error says that a device's memory is used up."""
    import torch

    # On a CPU it is a plain RuntimeError, to be told by its text.
    return isinstance(err, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(err)


@cache
def bfloat16_pays() -> bool:
    """Whether this processor is clearly faster in bfloat16, measured where it has tiles for it.

    Vector instructions alone do not pay: VideoMAE-base took twice as long in bfloat16 on a
    processor with avx512_bf16, and three times as long on one without.
    """
    import torch

    if not torch.cpu._is_amx_tile_supported():
        return False
    seconds = {kind: _matmul_seconds(kind) for kind in (torch.float32, torch.bfloat16)}
    return seconds[torch.bfloat16] < seconds[torch.float32] / 1.5


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Seconds that the widest matrix product of a base encoder takes, at best."""
    import torch

    tokens, weights = torch.ones(1568, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        torch.matmul(tokens, weights)
        best = min(best, time.perf_counter() - start)
    return best
