"""Number types and memory errors of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype with a name; for `auto`, the fastest one on a GPU, and float32 on a CPU.

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
    return torch.float32


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that a device is out of memory."""
    import torch

    # On a CPU, torch raises a RuntimeError that differs only in its message.
    return isinstance(err, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(err)
