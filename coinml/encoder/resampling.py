"""PIL's antialiased resizing as two matrix products, for a GPU.

Only the cropped part of the result is computed, from the part of the source that it depends on. As
in PIL, each row is resampled first and rounded to integers before the columns are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Span = tuple[int, int]
"""First pixel, and the pixel after the last one."""

_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""Support of a filter in pixels, if the frame is not made smaller."""
_BICUBIC_A = -0.5


def resample(
    frames: torch.Tensor, size: tuple[int, int], rows: Span, columns: Span, *, interpolation: str
) -> torch.Tensor:
    """Resize frames and crop the result.

    Args:
        frames: uint8 (N, height, width, 3).
        size: (height, width) before the crop.
        rows: Rows of the result to keep.
        columns: Columns of the result to keep.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (N, 3, kept rows, kept columns), contiguous, on the same device.
    """
    import torch

    height, width = frames.shape[1:3]
    vertical, (top, bottom) = _weights(height, size[0], rows, interpolation, frames.device)
    horizontal, (left, right) = _weights(width, size[1], columns, interpolation, frames.device)
    images = frames[:, top:bottom, left:right].permute(0, 3, 1, 2)
    if horizontal is not None:
        values = images.to(torch.float32, memory_format=torch.contiguous_format)
        images = _rounded(values @ horizontal.T)
    if vertical is not None:
        values = images.to(torch.float32, memory_format=torch.contiguous_format)
        images = _rounded(vertical @ values)
    for table in (vertical, horizontal):
        if table is not None and table.is_cuda:
            # The cache may drop the table while this stream still reads it.
            table.record_stream(torch.cuda.current_stream(table.device))
    return images.contiguous()


def _rounded(values: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, halves up, as PIL does: uint8."""
    import torch

    return values.add_(0.5).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _weights(
    source: int, target: int, kept: Span, interpolation: str, device: torch.device
) -> tuple[torch.Tensor | None, Span]:
    """Weights of the source pixels for each kept pixel along one axis.

    Cached, since copying a table to a GPU for each clip would wait for queued work.

    Returns:
        float32 (kept pixels, needed source pixels), or None if the axis keeps its size; and the
        span of the needed source pixels.
    """
    import torch

    if source == target:
        return None, kept
    scale = source / target
    stretch = max(scale, 1.0)
    support = _SUPPORT[interpolation] * stretch
    centres = (torch.arange(*kept, dtype=torch.float64) + 0.5) * scale
    firsts = (centres - support + 0.5).long().clamp(min=0)
    lasts = (centres + support + 0.5).long().clamp(max=source)
    start, stop = int(firsts[0]), int(lasts[-1])
    pixels = torch.arange(start, stop)
    weights = _filter((pixels - centres[:, None] + 0.5) / stretch, interpolation)
    weights *= (pixels >= firsts[:, None]) & (pixels < lasts[:, None])
    weights /= weights.sum(1, keepdim=True)
    return weights.to(device, torch.float32), (start, stop)


def _filter(distance: torch.Tensor, interpolation: str) -> torch.Tensor:
    """Weight of a pixel by its distance from the filter's centre."""
    import torch

    distance = distance.abs()
    if interpolation == "bilinear":
        return (1 - distance).clamp(min=0)
    a = _BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
