"""The kernels of a CPU: their vectors, which of them is chosen, and what is kept of it."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder import backbone, kernel_cache, kernel_choice, kernels
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.kernels import KERNELS, find_kernels
from coinml.encoder.openvino_model import compiled, converted
from coinml.encoder.pooled_model import FirstLayer
from coinml.encoder.sampling import Sampling
from coinml.errors import InvalidInputError
from coinml.media import write_video
from tests.unit.encoder.test_encoder_families import FAMILIES, clips_of, cosine

OTHERS = [name for name in KERNELS if name != "torch-float32"]
OPENVINO = [name for name in KERNELS if name.startswith("openvino")]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kept figures, empty."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data" / "cache" / "kernels"


@pytest.fixture
def all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure all kernels although a tiny model is not worth it, however busy the machine is."""
    monkeypatch.setattr(kernel_choice, "_SHORT_S", 0.0)
    monkeypatch.setattr(kernel_choice, "_PROBE_S", 60.0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A family of encoders."""
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of the family."""
    return FAMILIES[family][0](tmp_path_factory.mktemp(family))


@pytest.mark.parametrize("name", OTHERS)
def test_vectors_agree_with_torch_in_float32(family: str, checkpoint: Path, name: str) -> None:
    clips = clips_of(FAMILIES[family][2])
    wanted = load_encoder(checkpoint, device="cpu", kernel="torch-float32").encode(clips)
    encoder = load_encoder(checkpoint, device="cpu", kernel=name)
    assert encoder.dtype_name == name.split("-")[1]
    found = encoder.encode(clips)
    assert found.dtype == np.float32
    assert cosine(found, wanted).min() >= KERNELS[name].least_cosine
    # Other numbers of clips than the one that the model was prepared with.
    alone = encoder.encode(clips, batch_clips=1)
    np.testing.assert_allclose(alone, found, rtol=0.02, atol=0.02 * np.abs(wanted).max())
    # The vectors of different clips differ by far more than those of different kernels.
    assert 1 - cosine(wanted[:1], wanted[1:]).max() > 20 * (1 - cosine(found, wanted).min())


@pytest.mark.parametrize("name", OTHERS)
def test_kept_tokens_agree_too(tiny_encoder_dir: Path, name: str) -> None:
    clips = clips_of(16)
    some = Sampling(keep_tokens=0.25, keep_seed=3)
    wanted = load_encoder(tiny_encoder_dir, device="cpu", kernel="torch-float32", sampling=some)
    found = load_encoder(tiny_encoder_dir, device="cpu", kernel=name, sampling=some)
    assert cosine(found.encode(clips), wanted.encode(clips)).min() >= KERNELS[name].least_cosine
    assert found.spec.fingerprint == wanted.spec.fingerprint


@pytest.mark.parametrize("name", ["onednn-float32", *OPENVINO])
def test_threads_get_the_vectors_of_their_own_clips(tiny_encoder_dir: Path, name: str) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu", kernel=name)
    rng = np.random.default_rng(0)
    prepared = [
        encoder.prepare(rng.integers(0, 255, (16, 36, 48, 3), dtype=np.uint8)) for _ in range(24)
    ]
    batches = [prepared[start : start + 1 + start % 3] for start in range(0, 24, 2)]

    def work(batch: list[torch.Tensor]) -> np.ndarray:
        torch.set_num_threads(1)
        return encoder.encode_prepared(batch)

    one_by_one = [work(batch) for batch in batches]
    kept = [vectors.copy() for vectors in one_by_one]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(work, batches), kept, strict=True):
                np.testing.assert_array_equal(found, wanted)
    # A later call does not write into an earlier answer.
    for vectors, wanted in zip(one_by_one, kept, strict=True):
        np.testing.assert_array_equal(vectors, wanted)


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


def test_compiling_keeps_the_signal_stack_of_its_thread() -> None:
    """With OpenVINO's own, the next signal ended the process without a message."""

    def stack() -> bytes:
        found = ctypes.create_string_buffer(64)
        assert ctypes.CDLL(None).sigaltstack(None, found) == 0
        return found.raw

    layer, pixels = torch.nn.Linear(64, 64), torch.ones(2, 64)
    before = stack()
    run = compiled(converted(layer, pixels)[0], "f32")
    assert run(pixels).shape == (2, 64)
    assert stack() == before


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from coinml.encoder.openvino_model import load_openvino as load; load();"
        "assert 'openvino' in sys.modules;"
        "print([name for name, module in sys.modules.items() if module is not None"
        " and name.startswith('openvino_telemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_set_that_another_kernel_continues_is_one_set(
    tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    jobs = []
    for number in range(4):
        frames = rng.integers(0, 255, (40, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        path = write_video(tmp_path / f"{number}.mp4", iter(frames), fps=20)
        jobs.append(EmbedJob(video_id=str(number), path=str(path), file_sha256=f"{number:064d}"))

    def encoder_of(kernel: str) -> ClipEncoder:
        return load_encoder(
            tiny_encoder_dir, device="cpu", kernel=kernel, sampling=Sampling(clips=2)
        )

    def opened(name: str, encoder: ClipEncoder) -> EmbeddingSet:
        spec = SetSpec(encoder=encoder.spec, dataset="d")
        return EmbeddingSet.open(str(tmp_path / name), "d", spec, create=True)

    first, second = encoder_of("torch-float32"), encoder_of("openvino-bfloat16")
    both = opened("both", first)
    assert embed(jobs[:2], first, both, workers=1).embedded == 2
    report = embed(jobs, second, opened("both", second), workers=1)
    assert (report.embedded, report.skipped) == (2, 2)
    assert report.kernel.startswith("openvino-bfloat16")
    whole = opened("whole", first)
    embed(jobs, first, whole, workers=1)
    rows, wanted = (one.clips(["video_id", "dtype"]).to_pandas() for one in (both, whole))
    assert sorted(rows["video_id"]) == sorted(wanted["video_id"])
    assert set(rows[rows["video_id"] < "2"]["dtype"]) == {"float32"}
    assert set(rows[rows["video_id"] >= "2"]["dtype"]) == {"bfloat16"}
    assert both.videos().index.tolist() == whole.videos().index.tolist()
    assert cosine(both.matrix().means, whole.matrix().means).min() > 0.999
