"""Chooses how an encoder is computed on this machine's CPU, by measuring one of its layers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coinml.encoder.checkpoint import first_line
from coinml.encoder.kernel_cache import KernelFigure, cached_figures, keep_figures
from coinml.encoder.kernels import KERNELS, Kernel, Run, disagreement, least_cosine
from coinml.errors import InvalidInputError
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_CLIPS = 64
"""Number of clips for which preparing a kernel must pay: a fraction of most runs."""
_SHORT_S = 1.0
"""Seconds for `_CLIPS` clips, below which nothing is gained by looking for a faster kernel."""
_MEASURED_S = 0.05
"""CPU seconds for which a kernel is run at least."""
_REFERENCE = KERNELS["torch-float32"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelChoice:
    """The kernel that is used, and why.

    Attributes:
        kernel: The kernel.
        figures: What was measured, of each kernel that was tried.
        reason: Why it was chosen, where that was not by the figures.
    """

    kernel: Kernel
    figures: tuple[KernelFigure, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        measured = ", ".join(str(figure) for figure in self.figures)
        return "; ".join(part for part in (self.kernel.name, self.reason, measured) if part)


def choose_kernel(
    kernels: Sequence[Kernel],
    layer_model: Callable[[], torch.nn.Module],
    *,
    layers: int,
    example: Callable[[int], torch.Tensor],
    batch_clips: int,
    fingerprint: str,
) -> KernelChoice:
    """Choose the kernel that embeds a number of clips in the least time, with its preparation.

    Figures are kept for the machine and the encoder, and measured again if either is another.

    Args:
        kernels: Those to choose from, as `find_kernels` returns them.
        layer_model: Makes the model with only the first of its layers; a new one at each call.
        layers: Number of layers of the whole model.
        example: Makes an input of this number of clips.
        batch_clips: Clips per batch.
        fingerprint: The encoder's.

    Raises:
        InvalidInputError: There is only one kernel, and it cannot compute this encoder.
    """
    plainest = kernels[0]
    if len(kernels) == 1 and plainest.name.startswith("torch-"):
        return KernelChoice(kernel=plainest)
    named = [kernel.name for kernel in kernels]
    if (figures := cached_figures(named, fingerprint)) is None:
        probe = _Probe(layer_model, layers, example, batch_clips)
        first = probe.measure(plainest)
        if len(kernels) > 1 and first.clip_s * _CLIPS < _SHORT_S * cpu_count():
            return KernelChoice(
                kernel=plainest,
                reason=f"no other was tried, as a clip takes {1000 * first.clip_s:.1f} ms",
            )
        figures = (first, *(probe.measure(kernel) for kernel in kernels[1:]))
        keep_figures(figures, fingerprint)
    good = {figure.name: figure for figure in figures if not figure.fault}
    if not good:
        raise InvalidInputError(
            f"kernel {plainest.name!r} cannot compute this encoder: {figures[0].fault}"
        )
    best = min(good.values(), key=lambda figure: figure.seconds(_CLIPS, cores=cpu_count()))
    return KernelChoice(kernel=KERNELS[best.name], figures=figures)


class _Probe:
    """Measures kernels with one layer, in one thread, in CPU seconds.

    The engine runs a batch in each thread, so that is its cost; and CPU seconds hardly depend on
    what else the machine is doing.
    """

    def __init__(
        self,
        layer_model: Callable[[], torch.nn.Module],
        layers: int,
        example: Callable[[int], torch.Tensor],
        batch_clips: int,
    ) -> None:
        self._layer_model = layer_model
        self._layers = layers
        self._one = self._pixels = example(1)
        reference = _REFERENCE.prepare(layer_model(), self._one)
        seconds, self._wanted = _timed(reference, self._one)
        # A batch as in the engine, if that is quick; one clip of a large model fills the caches.
        self._clips = max(1, min(batch_clips, int(_MEASURED_S / seconds)))
        if self._clips > 1:
            self._pixels = example(self._clips)
            _, self._wanted = _timed(reference, self._pixels)

    def measure(self, kernel: Kernel) -> KernelFigure:
        """Measure a kernel; the figure of one that fails has the fault."""
        begun = time.process_time()
        try:
            run = kernel.prepare(self._layer_model(), self._one)
            prepare_s = time.process_time() - begun
            run_s, vectors = _timed(run, self._pixels)
            spent_s = run_s
            while spent_s < _MEASURED_S:
                again_s, _ = _timed(run, self._pixels)
                run_s, spent_s = min(run_s, again_s), spent_s + again_s
        # Whatever a conversion raises, another kernel is used.
        except Exception as err:
            logger.debug("kernel %s fails", kernel.name, exc_info=True)
            return KernelFigure(name=kernel.name, fault=first_line(err))
        cosine = least_cosine(vectors, self._wanted)
        return KernelFigure(
            name=kernel.name,
            clip_s=run_s / self._clips * self._layers,
            prepare_s=prepare_s * self._layers,
            cosine=cosine,
            fault=disagreement(kernel, cosine),
        )


def _timed(run: Run, pixels: torch.Tensor) -> tuple[float, torch.Tensor]:
    """CPU seconds in one thread, and the vectors."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            begun = time.process_time()
            vectors = run(pixels)
            return max(time.process_time() - begun, 1e-6), vectors
    finally:
        torch.set_num_threads(threads)
