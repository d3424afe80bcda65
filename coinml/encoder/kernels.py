"""The ways to compute a frozen encoder on a CPU: a kernel is a row of `KERNELS`.

`kernel_choice` measures which of them is fastest on a machine. This module imports neither torch
nor OpenVINO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

AUTO = "auto"

OPENVINO_BATCH_VALUES = 1_250_000
"""One clip of VideoMAE-base: more are not faster, and each takes memory in every thread."""

Run = Callable[["torch.Tensor"], "torch.Tensor"]
"""Takes normalised pixels, float32 (N, frames, 3, height, width); returns float32 (N, D)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One way to compute an encoder on a CPU.

    Attributes:
        name: As `--kernel` takes it.
        dtype: Number type that it computes in; recorded with each vector.
        least_cosine: Least cosine of its vectors to torch's in float32.
        is_available: Whether it can be used on this machine.
        prepare: Makes a function from a model and an example of its input. It may change the model
            or share its memory: the model is not used for anything else afterwards.
        is_traced: Whether preparing it computes the example once by torch and once by the kernel.
        is_automatic: Whether it is used without being named.
        batch_values: Values (tokens by their width) per batch of a thread.
        install: How to install what it needs, for the message.
    """

    name: str
    dtype: str
    least_cosine: float
    prepare: Callable[[torch.nn.Module, torch.Tensor], Run]
    is_available: Callable[[], bool] = lambda: True
    is_traced: bool = False
    is_automatic: bool = True
    batch_values: int = 5_000_000
    install: str = ""


def find_kernels(name: str, *, dtype: str = AUTO) -> list[Kernel]:
    """The kernels to choose from, the plainest first.

    Args:
        name: A kernel's name, or `auto` for all automatic ones of the dtype.
        dtype: A number type, or `auto`.

    Raises:
        InvalidInputError: There is no such kernel, it is not available here, or it computes in
            another dtype.
    """
    if name == AUTO:
        fitting = [kernel for kernel in KERNELS.values() if dtype in (AUTO, kernel.dtype)]
        chosen = [kernel for kernel in fitting if kernel.is_automatic or dtype != AUTO]
        return [kernel for kernel in chosen if kernel.is_available()]
    kernel = KERNELS.get(check_kernel_name(name))
    assert kernel is not None
    if not kernel.is_available():
        raise InvalidInputError(
            f"kernel {name!r} is not available here"
            f"{f' ({kernel.install})' if kernel.install else ''}; available: "
            f"{', '.join(available_kernels())}"
        )
    if dtype not in (AUTO, kernel.dtype):
        raise InvalidInputError(f"kernel {name!r} computes in {kernel.dtype}, not in {dtype}")
    return [kernel]


def check_kernel_name(name: str) -> str:
    """The name, if it is `auto` or a kernel's.

    Raises:
        InvalidInputError: It is not.
    """
    if name != AUTO and name not in KERNELS:
        raise InvalidInputError(
            f"kernel {name!r} is unknown; known: {', '.join((AUTO, *KERNELS))}; available here: "
            f"{', '.join(available_kernels())}"
        )
    return name


def available_kernels() -> list[str]:
    """Names of the kernels that can be used on this machine."""
    return [kernel.name for kernel in KERNELS.values() if kernel.is_available()]


def disagreement(kernel: Kernel, cosine: float) -> str:
    """Why vectors with this least cosine to torch's are not used; empty if they are."""
    # NaN is not at least anything.
    if cosine >= kernel.least_cosine:
        return ""
    return f"its vectors differ: cosine {cosine:.6f}, at least {kernel.least_cosine:g} is needed"


def least_cosine(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Least cosine of the pairs of rows."""
    import torch

    return float(torch.cosine_similarity(found.double(), wanted.double(), dim=1).min())


def _in_float32(model: torch.nn.Module, _: torch.Tensor) -> Run:
    return model


def _in_half(dtype: str) -> Callable[[torch.nn.Module, torch.Tensor], Run]:
    def prepare(model: Any, _: torch.Tensor) -> Run:
        import torch

        from coinml.encoder.backbone import move_position_tables

        number_type = getattr(torch, dtype)
        # Not its pooling and norm, which are in float32 for any dtype.
        model.model.to(number_type)
        move_position_tables(model, device=torch.device("cpu"), dtype=number_type)

        class InHalf(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model.model

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                vectors: torch.Tensor = model(pixels.to(number_type))
                return vectors

        return InHalf()

    return prepare


def _onednn(model: torch.nn.Module, _: torch.Tensor) -> Run:
    """Compute linear layers by oneDNN, with weights in its own layout.

    torch computes them by MKL, which on AMD's processors may run at half of oneDNN's rate.
    """
    import torch

    class PackedLinear(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            weight = linear.weight.detach()
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)
            self.bias = None if linear.bias is None else linear.bias.detach()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
                inputs, self.weight, self.bias, "none", [], ""
            )
            return product

    def replace(module: torch.nn.Module) -> None:
        for name, child in module.named_children():
            # A subclass may compute something else.
            if type(child) is torch.nn.Linear:
                setattr(module, name, PackedLinear(child))
            else:
                replace(child)

    replace(model)
    return model


def _has_onednn() -> bool:
    import torch

    # Neither function is documented; both have been there since torch 2.0, on x86-64 and ARM.
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def _openvino(name: str, precision: str) -> Callable[[torch.nn.Module, torch.Tensor], Run]:
    def prepare(model: torch.nn.Module, example: torch.Tensor) -> Run:
        from coinml.encoder.openvino_model import compiled, converted

        graph, wanted = converted(model, example)
        run = compiled(graph, precision)
        # The first run packs the weights; a conversion that went wrong is seen before it is used.
        if fault := disagreement(KERNELS[name], least_cosine(run(example), wanted)):
            raise ArithmeticError(fault)
        return run

    return prepare


def _has_openvino() -> bool:
    return find_spec("openvino") is not None


_OPENVINO: Mapping[str, Any] = {
    "is_available": _has_openvino,
    "is_traced": True,
    "install": "pip install 'coinml[openvino]'",
    "batch_values": OPENVINO_BATCH_VALUES,
}

KERNELS: Mapping[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel(name="torch-float32", dtype="float32", least_cosine=0.9999, prepare=_in_float32),
        Kernel(
            name="torch-bfloat16",
            dtype="bfloat16",
            least_cosine=0.999,
            prepare=_in_half("bfloat16"),
        ),
        # CPUs without arithmetic for it are many times slower than in float32.
        Kernel(
            name="torch-float16",
            dtype="float16",
            least_cosine=0.999,
            prepare=_in_half("float16"),
            is_automatic=False,
        ),
        Kernel(
            name="onednn-float32",
            dtype="float32",
            least_cosine=0.9999,
            prepare=_onednn,
            is_available=_has_onednn,
        ),
        Kernel(
            name="openvino-float32",
            dtype="float32",
            least_cosine=0.9999,
            prepare=_openvino("openvino-float32", "f32"),
            **_OPENVINO,
        ),
        Kernel(
            name="openvino-bfloat16",
            dtype="bfloat16",
            least_cosine=0.999,
            prepare=_openvino("openvino-bfloat16", "bf16"),
            **_OPENVINO,
        ),
    )
}
"""The kernels by name. The vectors of all others are compared with those of `torch-float32`."""
