from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from coinml.embedding_sets.table import Samples
from coinml.heads import batch_parts, linear
from coinml.heads.attentive import train_attentive
from coinml.heads.batch_parts import BatchParts
from coinml.heads.mlp import train_mlp


class Layer(nn.Module):
    noise = None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear.linear(x, self.weight)


def samples(n: int, seed: int) -> Samples:
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 4
    clips = (generator.normal(size=(n, 3, 16)) + y[:, None, None]).astype(np.float16)
    x = clips.mean(axis=1).astype(np.float32)
    return Samples(ids=tuple(map(str, range(n))), x=x, y=y, classes=tuple("abcd"), clips=clips)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_the_gradient_of_the_parts_is_that_of_the_batch(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, y = torch.randn(rows, 8, generator=generator), torch.arange(rows) % 3
    network = Layer()
    with BatchParts(network) as parts:
        parts.set_gradients(
            lambda one, part: (
                functional.cross_entropy(one(x[part]), y[part], reduction="sum") / rows
            ),
            rows,
        )
    whole = torch.autograd.grad(functional.cross_entropy(network(x), y), network.weight)
    assert torch.allclose(network.weight.grad, *whole, atol=1e-6)


@pytest.mark.parametrize("trainer", [train_mlp, train_attentive])
def test_the_number_of_cpus_changes_no_bit_of_a_head(
    trainer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = samples(101, 1), samples(40, 2)
    answers = []
    for cpus, torch_threads in ((1, 1), (2, 2), (16, 3)):
        monkeypatch.setattr(batch_parts, "cpu_count", lambda cpus=cpus: cpus)
        before = torch.get_num_threads()
        torch.set_num_threads(torch_threads)
        try:
            head = trainer(train, val, epochs=3, batch_size=50, seed=5)
            assert torch.get_num_threads() == torch_threads
        finally:
            torch.set_num_threads(before)
        given = val.clips if trainer is train_attentive else val.x
        answers.append(head.predict_proba(given))
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_each_part_draws_dropout_of_its_own() -> None:
    network = Layer()
    network.noise = torch.Generator().manual_seed(3)
    first, second = BatchParts(network).networks
    assert first is network
    assert second.weight is network.weight
    drawn = [torch.rand(5, generator=one.noise) for one in (first, second)]
    assert not torch.equal(*drawn)


def test_torch_has_as_many_threads_after_overlapping_trainings_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    started, ended = threading.Event(), threading.Event()
    found: list[int] = []

    def later() -> None:
        with BatchParts(Layer()):
            started.set()
            ended.wait(30)
        found.append(torch.get_num_threads())

    try:
        with BatchParts(Layer()):
            assert torch.get_num_threads() == 1
            thread = threading.Thread(target=later)
            thread.start()
            assert started.wait(30)
        assert torch.get_num_threads() == 3
        ended.set()
        thread.join()
        new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        new.start()
        new.join()
        assert found == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_an_error_of_one_part_is_raised() -> None:
    def broken(network: nn.Module, part: slice) -> torch.Tensor:
        if part.start:
            raise MemoryError("second part")
        return network(torch.ones(1, 8)).sum()

    with BatchParts(Layer()) as parts, pytest.raises(MemoryError, match="second part"):
        parts.set_gradients(broken, 4)


@pytest.mark.parametrize("shape", [(5, 8), (5, 2, 8), (0, 8)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_layers_are_torchs(
    shape: tuple[int, ...], has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(s, generator=generator).requires_grad_() for s in (shape, (3, 8), (3,))]
    if not has_bias:
        given.pop()
    results = []
    for is_better in (True, False):
        monkeypatch.setattr(linear, "_IS_BETTER", is_better)
        scores = linear.linear(*given)
        results.append([scores, *torch.autograd.grad((scores**2).sum(), given)])
    assert len(results[0]) == len(given) + 1
    for ours, torchs in zip(*results, strict=True):
        assert ours.shape == torchs.shape
        assert torch.allclose(ours, torchs, atol=1e-4)
