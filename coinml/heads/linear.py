"""Linear layers by oneDNN where torch would compute them with MKL.

On AMD's processors MKL leaves out AVX-512: on Zen 5 it reaches half of oneDNN's rate, on Zen 4,
whose AVX-512 is no wider, the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, for inputs (N, D) or (N, K, D)."""
    if not (_IS_BETTER and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel()):
        return functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    scores: Tensor = _Linear.apply(flat, weight, bias)  # type: ignore[no-untyped-call]
    return scores.view(*x.shape[:-1], -1)


def _is_amd() -> bool:
    described = Path("/proc/cpuinfo")
    return described.is_file() and "AuthenticAMD" in described.read_text()


_IS_BETTER = (
    torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and _is_amd()
)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        return (
            _product(grad, weight.t()) if ctx.needs_input_grad[0] else None,
            _product(grad.t(), x.t()) if ctx.needs_input_grad[1] else None,
            grad.sum(dim=0) if ctx.has_bias and ctx.needs_input_grad[2] else None,
        )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of `a` and the transposed `b`, plus the bias."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
    return product
