"""Number types and memory errors of devices."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype with a name; for `auto`, the fastest one on the device.

    Raises:
        InvalidInputError: The name is not one of `DTYPES`.
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
            # Older GPUs emulate bfloat16 slowly and support float16 in hardware.
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if device.type == "cpu" and is_bfloat16_faster():
        return torch.bfloat16
    return torch.float32


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that a device is out of memory."""
    import torch

    # On a CPU, torch raises a RuntimeError that differs only in its message.
    return isinstance(err, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(err)


@cache
def is_bfloat16_faster() -> bool:
    """Whether bfloat16 is clearly faster on this CPU, measured if it has AMX tiles.

    Vector instructions are not enough: VideoMAE-base took twice as long in bfloat16 on a CPU with
    avx512_bf16, and three times as long on one without.
    """
    import torch

    if not torch.cpu._is_amx_tile_supported():
        return False
    seconds = {kind: _matmul_seconds(kind) for kind in (torch.float32, torch.bfloat16)}
    return seconds[torch.bfloat16] < seconds[torch.float32] / 1.5


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Shortest time in seconds of the widest matrix product of a base-size encoder."""
    import torch

    tokens, weights = torch.ones(1568, 768, dtype=dtype), torch.ones(768, 3072, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        torch.matmul(tokens, weights)
        best = min(best, time.perf_counter() - start)
    return best
