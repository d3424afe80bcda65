"""How many clips an encoder computes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from coinml.encoder.backbone import Backbone
    from coinml.encoder.device_queue import DeviceQueue
    from coinml.encoder.kernels import Kernel

_MAX_CPU, _MAX_CUDA = 64, 256
"""Clips per batch; larger batches are not faster, even with a small encoder."""
_MAX_TOKENS_CUDA = 200_000
"""Tokens per batch (127 clips of VideoMAE-base); larger batches are not faster, even on a large
GPU."""
_MEMORY_SHARE = 0.6
"""Share of a GPU's free memory for a batch; the rest is for clips that wait or are resized."""


def cpu_batch(backbone: Backbone, kernel: Kernel) -> int:
    """Clips per batch of a thread on a CPU: as many as have the kernel's number of values."""
    clips = kernel.batch_values // (backbone.tokens * backbone.width)
    return int(np.clip(clips, 1, _MAX_CPU))


def cuda_batch(backbone: Backbone, queue: DeviceQueue, zeros: Callable[[int], torch.Tensor]) -> int:
    """Clips per batch on a GPU, by its free memory, which trial batches measure.

    Args:
        backbone: The encoder's, on the GPU.
        queue: The GPU's.
        zeros: Makes pixels of a number of clips on the GPU.
    """
    fitting = queue.max_items(lambda clips: backbone(zeros(clips)), share=_MEMORY_SHARE)
    return max(1, min(fitting, _MAX_TOKENS_CUDA // backbone.tokens, _MAX_CUDA))
