"""Chooses how an encoder is computed on this machine's CPU, by measuring one of its layers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

UNKNOWN_WORK_CLIPS = 64
"""Clips for which preparing a kernel must pay where nobody says how many there are to embed, as for
a served model: eight videos of eight clips."""
_SHORT_S = 1.0
"""Seconds for those clips, below which nothing is gained by looking for a faster kernel."""
_PROBE_S = 1.0
"""Seconds after which no further kernel is tried."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSample:
    """One of a model's layers and an input of it, to measure kernels with.

    Attributes:
        make: Makes the layer, a model of its own; a new one at each call.
        states: Its input: float32 (clips, tokens, D), of which the tokens may be a part.
        layers: Number of layers of the model.
        clips: Number of clips that the model computes in the time of this layer and input; less
            than one.
    """

    make: Callable[[], torch.nn.Module]
    states: torch.Tensor
    layers: int
    clips: float


def choose_kernel(
    kernels: Sequence[Kernel],
    sample: Callable[[], LayerSample],
    *,
    fingerprint: str,
    expected_clips: int | None = None,
) -> KernelChoice:
    """Choose the kernel that embeds a number of clips in the least time, with its preparation.

    Figures are kept for the machine and the encoder, and measured again if either is another.
    Kernels for which there was no time are tried at the next call.

    Args:
        kernels: Those to choose from, as `find_kernels` returns them.
        sample: Makes the layer that is measured.
        fingerprint: The encoder's.
        expected_clips: The number of clips; None if nobody knows.

    Raises:
        InvalidInputError: There is only one kernel, and it cannot compute this encoder.
    """
    plainest = kernels[0]
    if len(kernels) == 1 and plainest.name.startswith("torch-"):
        return KernelChoice(kernel=plainest)
    named = [kernel.name for kernel in kernels]
    known = {figure.name: figure for figure in cached_figures(named, fingerprint)}
    # The last ones are the fastest on most machines.
    if left := [kernel for kernel in reversed(kernels) if kernel.name not in known]:
        ends = time.perf_counter() + _PROBE_S
        probe = _Probe(sample())
        if plainest in left:
            left.remove(plainest)
            first = known[plainest.name] = probe.measure(plainest)
            if left and first.clip_s * UNKNOWN_WORK_CLIPS < _SHORT_S * cpu_count():
                return KernelChoice(
                    kernel=plainest,
                    reason=f"no other was tried, as a clip takes {1000 * first.clip_s:.1f} ms",
                )
        # At least one: with too little time for any, none would ever be tried.
        for number, kernel in enumerate(left):
            if number and time.perf_counter() > ends:
                break
            known[kernel.name] = probe.measure(kernel)
        keep_figures(named, [known[name] for name in named if name in known], fingerprint)
    figures = tuple(known[name] for name in named if name in known)
    good = {figure.name: figure for figure in figures if not figure.fault}
    if not good:
        raise InvalidInputError(
            f"kernel {plainest.name!r} cannot compute this encoder: {figures[0].fault}"
        )
    clips = UNKNOWN_WORK_CLIPS if expected_clips is None else expected_clips
    best = min(good.values(), key=lambda figure: figure.seconds(clips, cores=cpu_count()))
    untried = ", ".join(name for name in named if name not in known)
    return KernelChoice(
        kernel=KERNELS[best.name],
        figures=figures,
        reason=f"not yet tried: {untried}" if untried else "",
    )


class _Probe:
    """Measures kernels with one layer, in one thread, in CPU seconds.

    The engine runs a batch in each thread, so that is its cost; and CPU seconds hardly depend on
    what else the machine is doing.
    """

    def __init__(self, sample: LayerSample) -> None:
        self._sample = sample
        reference = _REFERENCE.prepare(sample.make(), sample.states)
        with _one_thread():
            # The first run is slower.
            _timed(reference, sample.states)
            self._reference_s, self._wanted = _timed(reference, sample.states)

    def measure(self, kernel: Kernel) -> KernelFigure:
        """Measure a kernel; the figure of one that fails has the fault."""
        with _one_thread():
            return self._measured(kernel)

    def _measured(self, kernel: Kernel) -> KernelFigure:
        sample = self._sample
        try:
            begun = time.process_time()
            run = kernel.prepare(sample.make(), sample.states)
            prepare_s = time.process_time() - begun
            run_s, vectors = _timed(run, sample.states)
            spent_s = run_s
            while spent_s < _MEASURED_S:
                again_s, _ = _timed(run, sample.states)
                run_s, spent_s = min(run_s, again_s), spent_s + again_s
        # Whatever a conversion raises, another kernel is used.
        except Exception as err:
            logger.debug("kernel %s fails", kernel.name, exc_info=True)
            return KernelFigure(name=kernel.name, fault=first_line(err))
        cosine = least_cosine(vectors, self._wanted)
        prepare_s *= sample.layers
        if kernel.is_traced:
            # With the whole model it computes a clip, and not this input for each layer.
            prepare_s += (self._reference_s + run_s) * (1 / sample.clips - sample.layers)
        return KernelFigure(
            name=kernel.name,
            clip_s=run_s / sample.clips,
            prepare_s=max(0.0, prepare_s),
            cosine=cosine,
            fault=disagreement(kernel, cosine),
        )


def _timed(run: Run, states: torch.Tensor) -> tuple[float, torch.Tensor]:
    """CPU seconds, and the vectors."""
    import torch

    with torch.inference_mode():
        begun = time.process_time()
        vectors = run(states)
        return max(time.process_time() - begun, 1e-6), vectors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: several would wait for each other, in loops that take CPU seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
