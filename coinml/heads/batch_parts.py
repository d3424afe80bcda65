"""The gradient of a batch, computed in fixed parts by a thread each.

torch's own threads divide each matrix product among them and wait for each other in busy loops
after it. For products as small as a head's, that takes several times as long as the arithmetic when
other programs run. Here a thread computes its part of the batch from the first product to the last,
and the threads meet once per step. The parts do not depend on the number of CPUs, so that the
result does not either.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from coinml.runtime.cpus import cpu_count

PARTS = 2
"""Parts of a batch on a CPU; on other devices a batch is whole."""

_SEEDS_BETWEEN_PARTS = 500_000_003
"""Difference of the parts' seeds of dropout. torch uses the lower 32 bits of a seed."""

Given = TypeVar("Given")
Result = TypeVar("Result")


class PartLoss(Protocol):
    """The loss of a part of a batch; the parts' losses add up to the batch's."""

    def __call__(self, network: nn.Module, part: slice) -> Tensor:
        """A scalar."""


class BatchParts:
    """Computes gradients part by part; a context manager that owns the threads.

    Args:
        network: Has an attribute `noise`: None, or the generator of its dropout.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        self._on_cpu = all(p.device.type == "cpu" for p in self._parameters)
        others = range(1, PARTS if self._on_cpu else 1)
        self.networks = [network, *(_with_own_noise(network, part) for part in others)]
        self._helpers: ThreadPoolExecutor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> BatchParts:
        helpers = min(len(self.networks), cpu_count()) - 1
        if self._on_cpu:
            self._stack.enter_context(_one_torch_thread())
        if helpers:
            self._helpers = self._stack.enter_context(
                ThreadPoolExecutor(helpers, "head", torch.set_num_threads, (1,))
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self, mode: bool = True) -> None:
        """Set the mode of all parts' networks."""
        for network in self.networks:
            network.train(mode)

    def set_gradients(self, loss: PartLoss, rows: int) -> None:
        """Set the parameters' gradients to those of a batch of so many rows."""
        size = -(-rows // len(self.networks))
        parts = [slice(start, start + size) for start in range(0, rows, size)]

        def gradients(given: tuple[nn.Module, slice]) -> list[Tensor]:
            return list(torch.autograd.grad(loss(*given), self._parameters))

        total, *others = self.map(gradients, list(zip(self.networks, parts, strict=False)))
        for other in others:
            torch._foreach_add_(total, other)
        for parameter, gradient in zip(self._parameters, total, strict=True):
            parameter.grad = gradient

    def map(self, work: Callable[[Given], Result], given: Sequence[Given]) -> list[Result]:
        """The results of some work, at once if there are CPUs for it; the first is done here."""
        first, *others = given
        if self._helpers is None:
            return [work(one) for one in given]
        futures = [self._helpers.submit(work, one) for one in others]
        return [work(first), *(future.result() for future in futures)]


def _with_own_noise(network: nn.Module, part: int) -> nn.Module:
    """The same network, with the same parameters, but with a generator of dropout of its own."""
    twin: Any = copy.copy(network)
    if twin.noise is not None:
        seed = twin.noise.initial_seed() + part * _SEEDS_BETWEEN_PARTS
        twin.noise = torch.Generator(twin.noise.device).manual_seed(seed)
    return twin  # type: ignore[no-any-return]


class _Users:
    """How many trainings run, and torch's number of threads before the first of them."""

    lock = threading.Lock()
    count = 0
    threads_before = 1


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Lets torch use one thread for what this thread computes.

    torch keeps the number for each thread, and the last one that was set for threads to come:
    therefore trainings at the same time restore the number before the first of them.
    """
    with _Users.lock:
        if not _Users.count:
            _Users.threads_before = torch.get_num_threads()
        _Users.count += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _Users.lock:
            _Users.count -= 1
            torch.set_num_threads(_Users.threads_before)
