"""Resizing with antialiasing as PIL does it, by two matrix products, where a GPU does it.

Only the part of the picture that the crop keeps is computed, from the part of the source that it
needs. As in PIL, rows are resampled first and rounded to whole values before the columns are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Span = tuple[int, int]
"""From this pixel on, up to and without that one."""

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Reach of a filter in pixels, where the picture is not made smaller."""
_BICUBIC_A = -0.5


def resample(
    frames: torch.Tensor, size: tuple[int, int], rows: Span, columns: Span, *, interpolation: str
) -> torch.Tensor:
    """Resize frames and keep a part of the result.

    Args:
        frames: uint8 (N, height, width, 3).
        size: (height, width) to bring them to.
        rows: Those of the result that are kept.
        columns: Likewise.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (N, 3, kept rows, kept columns), contiguous, on the same device.
    """
    import torch

    height, width = frames.shape[1:3]
    place = (interpolation, frames.device)
    vertical, (top, bottom) = _weights(height, size[0], rows, *place)
    horizontal, (left, right) = _weights(width, size[1], columns, *place)
    pictures = frames[:, top:bottom, left:right].permute(0, 3, 1, 2)
    if horizontal is not None:
        values = pictures.to(torch.float32, memory_format=torch.contiguous_format)
        pictures = _rounded(values @ horizontal.T)
    if vertical is not None:
        values = pictures.to(torch.float32, memory_format=torch.contiguous_format)
        pictures = _rounded(vertical @ values)
    for table in (vertical, horizontal):
        if table is not None and table.is_cuda:
            # It may be dropped from the cache while this stream still reads it.
            table.record_stream(torch.cuda.current_stream(table.device))
    return pictures.contiguous()


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """To the nearest whole value, halves upwards, as PIL does: uint8."""
    import torch

    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _weights(
    source: int, target: int, kept: Span, interpolation: str, device: torch.device
) -> tuple[torch.Tensor | None, Span]:
    """What each kept pixel of a line takes of which pixels of the source.

    Kept, because a table that is copied to a GPU for each clip would be waited for.

    Returns:
        float32 (kept pixels, needed pixels of the source), None where a line stays as it is, and
        the needed pixels.
    """
    import torch

    if source == target:
        return None, kept
    scale = source / target
    reach = max(scale, 1.0)
    support = _SUPPORT[interpolation] * reach
    centres = (torch.arange(*kept, dtype=torch.float64) + 0.5) * scale
    firsts = (centres - support + 0.5).long().clamp(min=0)
    lasts = (centres + support + 0.5).long().clamp(max=source)
    start, stop = int(firsts[0]), int(lasts[-1])
    pixels = torch.arange(start, stop)
    weights = _filter((pixels - centres[:, None] + 0.5) / reach, interpolation)
    weights *= (pixels >= firsts[:, None]) & (pixels < lasts[:, None])
    weights /= weights.sum(1, keepdim=True)
    return weights.to(device, torch.float32), (start, stop)


def _filter(distance: torch.Tensor, interpolation: str) -> torch.Tensor:
    """Weight of a pixel at some distance from the centre."""
    import torch

    distance = distance.abs()
    if interpolation == "bilinear":
        return (1 - distance).clamp(min=0)
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
