"""Which kernel of a CPU is chosen, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.encoder import backbone, kernel_cache, kernel_choice, kernels
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.kernels import KERNELS, find_kernels
from coinml.encoder.pooled_model import FirstLayer
from coinml.errors import InvalidInputError
from tests.unit.encoder.test_encoder_families import clips_of

OPENVINO = [name for name in KERNELS if name.startswith("openvino")]

pytestmark = pytest.mark.usefixtures("state")


def test_a_tiny_encoder_stays_with_torch(tiny_encoder_dir: Path, state: Path) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    assert encoder.kernel is not None
    assert encoder.kernel.kernel.name == "torch-float32"
    assert "no other was tried" in str(encoder.kernel)
    assert not state.exists()


@pytest.mark.usefixtures("all_are_tried")
def test_every_kernel_is_measured_once(
    tiny_encoder_dir: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_encoder(tiny_encoder_dir, device="cpu").kernel
    assert first is not None
    tried = [kernel.name for kernel in find_kernels("auto")]
    assert [figure.name for figure in first.figures] == tried
    assert set(OPENVINO) < set(tried)
    assert "torch-float16" not in tried
    for figure in first.figures:
        assert not figure.fault
        assert figure.clip_s > 0
        assert figure.cosine >= KERNELS[figure.name].least_cosine
        assert figure.name in str(first)
    monkeypatch.setattr(kernel_choice, "_Probe", None)
    again = load_encoder(tiny_encoder_dir, device="cpu").kernel
    assert again == first
    assert len(list(state.iterdir())) == 1


@pytest.mark.usefixtures("all_are_tried")
def test_kernels_for_which_there_is_no_time_are_tried_later(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_choice, "_PROBE_S", 0.0)
    tried = [kernel.name for kernel in find_kernels("auto")]
    # The plainest at first; of the others, those that are usually the fastest.
    order = [tried[0], *reversed(tried[1:])]
    for count in range(2, len(tried) + 1):
        choice = load_encoder(tiny_encoder_dir, device="cpu").kernel
        assert choice is not None
        assert {figure.name for figure in choice.figures} == set(order[:count])
        for name in order[count:]:
            assert name in choice.reason
    assert not choice.reason
    monkeypatch.setattr(kernel_choice, "_Probe", None)
    assert load_encoder(tiny_encoder_dir, device="cpu").kernel == choice


def test_a_layer_alone_computes_what_it_does_in_the_model(family: str, checkpoint: Path) -> None:
    encoder = load_encoder(checkpoint, device="cpu", kernel="torch-float32")
    model = encoder._backbone.torch_model()
    pixels = torch.randn(2, encoder.spec.frames, 3, *encoder.spec.crop)
    layer, states = model.first_layer(pixels)
    found: list[torch.Tensor] = []
    hook = model.layers[0].register_forward_hook(
        lambda *given: found.append(given[2][0] if isinstance(given[2], tuple) else given[2])
    )
    with torch.no_grad():
        model(pixels)
        hook.remove()
        (wanted,) = found
        torch.testing.assert_close(layer(states), wanted.mean(dim=1))


@pytest.mark.parametrize("tokens", [1, 10_000])
def test_kernels_are_measured_with_a_part_of_the_tokens(
    family: str, checkpoint: Path, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "_SAMPLE_TOKENS", tokens)
    encoder = load_encoder(checkpoint, device="cpu", kernel="torch-float32")
    sample = encoder._backbone._layer_sample(batch_clips=3)
    clips, some, _ = sample.states.shape
    # With a class token.
    extra = encoder._backbone.torch_model().first_layer(encoder._backbone._noise(1))[1].shape[1]
    extra -= encoder._backbone.tokens
    if tokens == 1:
        assert (clips, some - extra) == (1, encoder._backbone._row_tokens)
        assert some - extra < encoder._backbone.tokens
        assert sample.clips < some / (some + encoder._backbone.tokens)
    else:
        assert (clips, some - extra) == (3, encoder._backbone.tokens)
        assert sample.clips == pytest.approx(3 / sample.layers)
    assert torch.isfinite(sample.make()(sample.states)).all()


def slow_after(
    prepare_s: float, clip_s: float, name: str = "torch-float32"
) -> kernel_cache.KernelFigure:
    return kernel_cache.KernelFigure(name=name, clip_s=clip_s, prepare_s=prepare_s, cosine=1.0)


def choose(
    figures: list[kernel_cache.KernelFigure], monkeypatch: pytest.MonkeyPatch, **clips: int
) -> str:
    monkeypatch.setattr(kernel_choice, "cached_figures", lambda *_: tuple(figures))
    choice = kernel_choice.choose_kernel(
        [KERNELS[figure.name] for figure in figures],
        lambda: pytest.fail("a layer is run"),
        fingerprint="f",
        **clips,
    )
    return choice.kernel.name


def test_preparing_a_kernel_must_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "cpu_count", lambda: 2)
    plain = slow_after(0, 1.0)
    assert choose([plain, slow_after(30, 0.5, "openvino-float32")], monkeypatch) == "torch-float32"
    assert choose([plain, slow_after(10, 0.5, "openvino-float32")], monkeypatch) == (
        "openvino-float32"
    )


@pytest.mark.parametrize(("clips", "name"), [(8, "torch-float32"), (64, "openvino-float32")])
def test_it_must_pay_for_the_clips_that_there_are(
    clips: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_choice, "cpu_count", lambda: 2)
    figures = [slow_after(0, 1.0), slow_after(10, 0.5, "openvino-float32")]
    assert choose(figures, monkeypatch, expected_clips=clips) == name


def test_a_faster_kernel_with_other_vectors_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(slow_after(0, 0.1, "openvino-bfloat16"), fault="differs")
    assert choose([slow_after(0, 1.0), wrong], monkeypatch) == "torch-float32"
    with pytest.raises(InvalidInputError, match="cannot compute this encoder: differs"):
        choose([wrong], monkeypatch)


@pytest.mark.usefixtures("all_are_tried")
def test_another_machine_measures_again(
    tiny_encoder_dir: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_encoder(tiny_encoder_dir, device="cpu", dtype="float32")
    here = kernel_cache.machine()
    assert {"processor", "cores", "torch", "openvino"} <= set(here)
    monkeypatch.setattr(kernel_cache, "machine", lambda: {**here, "openvino": "2099.1"})
    load_encoder(tiny_encoder_dir, device="cpu", dtype="float32")
    assert len(list(state.iterdir())) == 2


@pytest.mark.usefixtures("all_are_tried")
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"figures": []}', '{"figures": [{"name": 1}]}']
)
def test_a_broken_file_of_figures_is_replaced(
    tiny_encoder_dir: Path, state: Path, content: str
) -> None:
    load_encoder(tiny_encoder_dir, device="cpu", kernel="onednn-float32")
    (path,) = state.iterdir()
    path.write_text(content)
    encoder = load_encoder(tiny_encoder_dir, device="cpu", kernel="onednn-float32")
    assert encoder.kernel is not None
    assert encoder.kernel.figures[0].clip_s > 0
    assert list(state.iterdir()) == [path]
    assert json.loads(path.read_text())["encoder"] == encoder.spec.fingerprint


def test_a_folder_that_cannot_be_written_is_no_error(
    tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "file" / "home"))
    assert load_encoder(tiny_encoder_dir, device="cpu", kernel="onednn-float32").kernel is not None


def failing(_: torch.nn.Module, __: torch.Tensor) -> kernels.Run:
    raise RuntimeError("No conversion rule found for operations: aten::new\nand more")


def with_kernel(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    changed = dataclasses.replace(KERNELS[name], **changes)  # type: ignore[arg-type]
    table = {**KERNELS, name: changed}
    monkeypatch.setattr(kernels, "KERNELS", table)
    monkeypatch.setattr(kernel_choice, "KERNELS", table)


@pytest.mark.usefixtures("all_are_tried")
def test_a_kernel_that_fails_is_left_out_and_named(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_kernel(monkeypatch, "openvino-bfloat16", prepare=failing)
    choice = load_encoder(tiny_encoder_dir, device="cpu").kernel
    assert choice is not None
    assert choice.kernel.name != "openvino-bfloat16"
    assert "openvino-bfloat16: No conversion rule found for operations: aten::new" in str(choice)
    with pytest.raises(InvalidInputError, match="'openvino-bfloat16' cannot compute this encoder"):
        load_encoder(tiny_encoder_dir, device="cpu", kernel="openvino-bfloat16")


def layers_only(prepare: Callable[..., kernels.Run]) -> Callable[..., kernels.Run]:
    """A preparation that fails for the whole model."""

    def only(model: torch.nn.Module, example: torch.Tensor) -> kernels.Run:
        is_layer = isinstance(model, FirstLayer)
        return prepare(model, example) if is_layer else failing(model, example)

    return only


def test_torch_computes_what_cannot_be_converted_as_a_whole(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = clips_of(16)
    wanted = load_encoder(tiny_encoder_dir, device="cpu").encode(clips)
    assert len(load_encoder(tiny_encoder_dir, device="cpu")._backbone._run.layers) > 1
    row = KERNELS["openvino-float32"]
    with_kernel(monkeypatch, row.name, prepare=layers_only(row.prepare))
    with pytest.raises(InvalidInputError, match=r"'openvino-float32' fails: No conversion rule"):
        load_encoder(tiny_encoder_dir, device="cpu", kernel=row.name)
    figures = [slow_after(0, 1.0, name) for name in kernels.available_kernels()]
    figures.append(slow_after(0, 0.1, row.name))
    monkeypatch.setattr(kernel_choice, "cached_figures", lambda *_: tuple(figures))
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    assert encoder.dtype_name == "float32"
    assert str(encoder.kernel).startswith(
        "torch-float32; kernel 'openvino-float32' fails: No conversion rule found"
    )
    np.testing.assert_array_equal(encoder.encode(clips), wanted)


def test_a_wrong_conversion_is_not_used(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coinml.encoder import openvino_model

    right = openvino_model.compiled
    monkeypatch.setattr(
        openvino_model, "compiled", lambda *given: lambda pixels: right(*given)(pixels).flip(1)
    )
    with pytest.raises(InvalidInputError, match="its vectors differ: cosine"):
        load_encoder(tiny_encoder_dir, device="cpu", kernel="openvino-float32")


def test_a_name_that_cannot_be_used_is_refused(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInputError, match=r"kernel 'mkl' is unknown; known: auto, torch-f"):
        load_encoder(tiny_encoder_dir, device="cpu", kernel="mkl")
    with pytest.raises(InvalidInputError, match="'onednn-float32' computes in float32, not in bf"):
        load_encoder(tiny_encoder_dir, device="cpu", kernel="onednn-float32", dtype="bfloat16")
    with_kernel(monkeypatch, "openvino-float32", is_available=lambda: False)
    with pytest.raises(
        InvalidInputError,
        match=r"'openvino-float32' is not available here \(pip install 'coinml\[openvino\]'\); "
        "available: torch-float32, ",
    ):
        load_encoder(tiny_encoder_dir, device="cpu", kernel="openvino-float32")


def test_a_dtype_takes_the_kernels_of_that_dtype() -> None:
    assert {kernel.dtype for kernel in find_kernels("auto", dtype="bfloat16")} == {"bfloat16"}
    assert [kernel.name for kernel in find_kernels("auto", dtype="float16")] == ["torch-float16"]
    assert find_kernels("auto")[0] == find_kernels("auto", dtype="float32")[0]
