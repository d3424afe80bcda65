"""Device names, as COINML_DEVICE, `--device` and `--devices` take them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """The device to compute on.

    Args:
        name: `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        InvalidInputError: Another name, or a CUDA device that torch does not see.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(_checked(name))


def find_devices(names: str) -> tuple[str, ...]:
    """The devices that one process each is to compute on.

    Args:
        names: `auto` (every CUDA device, else the CPU), or one or more of `cpu`, `cuda` and
            `cuda:N`, separated by commas.

    Returns:
        Names of the form `cpu` or `cuda:N`.

    Raises:
        InvalidInputError: As `find_device`.
    """
    import torch

    if names.strip() == "auto":
        count = torch.cuda.device_count()
        return tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)
    checked = [_checked(name.strip()) for name in names.split(",")]
    return tuple("cuda:0" if name == "cuda" else name for name in checked)


def _checked(name: str) -> str:
    import torch

    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", name)
    if match is None:
        raise InvalidInputError(f"device {name!r}: say auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if name != "cpu" and int(match[1] or 0) >= count:
        raise InvalidInputError(f"device {name!r}: torch sees {count} CUDA devices here")
    return name
