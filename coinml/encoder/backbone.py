"""The frozen model of an encoder: pixels in, pooled vectors out.

The only importer of transformers, except what trains an encoder.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from coinml.encoder.checkpoint import Checkpoint, first_line
from coinml.encoder.kernel_choice import KernelChoice, LayerSample, choose_kernel
from coinml.encoder.kernels import Kernel, Run
from coinml.encoder.model_config import dropped_weights
from coinml.encoder.spec import EncoderSpec
from coinml.encoder.token_masking import kept_positions
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_SAMPLE_TOKENS = 256
"""Tokens that the kernels are measured with: enough for the rate of large products."""


def load_backbone(
    checkpoint: Checkpoint, spec: EncoderSpec, *, device: torch.device, dtype: torch.dtype
) -> Backbone:
    """Load a checkpoint's model onto a device.

    Raises:
        InvalidInputError: Its files do not load, or lack some of the model's weights.
    """
    import torch

    architecture = checkpoint.architecture
    with quiet_transformers(), torch.device("cpu"):
        import transformers

        model_class = getattr(transformers, architecture.model_class)
        weights = checkpoint.weights.tensors()
        try:
            # Given the configuration and the tensors, transformers looks for no files: no other
            # weights, adapter or code can be loaded than what the spec was computed from.
            model, found = model_class.from_pretrained(
                None,
                config=model_class.config_class(**checkpoint.model_fields),
                state_dict=weights,
                local_files_only=True,
                dtype=dtype,
                attn_implementation=architecture.attention,
                output_loading_info=True,
                **architecture.load_options,
            )
        except Exception as err:
            # Malformed files raise errors of many types; all mean that the checkpoint is invalid.
            raise InvalidInputError(
                f"{checkpoint.ref}: cannot be loaded: {first_line(err)}"
            ) from err
    if dropped := dropped_weights(found["unexpected_keys"], checkpoint.config):
        raise InvalidInputError(
            f"{checkpoint.ref}: transformers {transformers.__version__} does not use "
            f"{len(dropped)} of the encoder's weights in {checkpoint.weights.main.name}, such as "
            f"{dropped[0]}, so "
            "the vectors would be wrong: config.json is not that of these weights, or another "
            "version of transformers is needed"
        )
    if missing := found["missing_keys"]:
        # transformers would initialise them randomly.
        raise InvalidInputError(
            f"{checkpoint.ref}: {checkpoint.weights.main.name} lacks {len(missing)} of the model's "
            f"weights, such as {min(missing)}"
        )
    return Backbone(checkpoint, spec, model=model, device=device, dtype=dtype)


class Backbone:
    """A loaded model; see `load_backbone`.

    Attributes:
        tokens: Number of tokens per clip that the model sees.
        width: Largest number of values per token: of its pixels or of its hidden state.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: EncoderSpec,
        *,
        model: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        from coinml.encoder.pooled_model import PooledModel

        architecture = checkpoint.architecture
        times, rows, columns = architecture.grid(checkpoint.config, spec.frames)
        positions = rows * columns
        kept = kept_positions(positions, keep_tokens=spec.keep_tokens, keep_seed=spec.keep_seed)
        if spec.keep_tokens < 1:
            select_tokens(model, kept, positions=positions, times=times)
        if device.type == "cuda":
            replace_patch_convolutions(model)
        pooled = PooledModel(
            model.to(device),
            architecture,
            norm=_fc_norm(checkpoint).to(device) if spec.pooling == "mean+fc_norm" else None,
            class_token=spec.pooling.endswith("+cls"),
        )
        move_position_tables(model, device=device, dtype=dtype)
        self._spec = spec
        self._run: Run = pooled.eval().requires_grad_(False)
        self.tokens = times * len(kept)
        values_per_token = 3 * spec.frames * spec.crop[0] * spec.crop[1] // (times * positions)
        self.width = max(spec.dim, values_per_token)
        # Divided attention takes whole rows of positions; a selection of tokens has none.
        self._row_tokens = times * columns if spec.keep_tokens == 1 else 1

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn normalised pixels into vectors.

        Args:
            pixels: (N, frames, 3, height, width), on its device; in the model's dtype, or in
                float32 if it is computed by a kernel.

        Returns:
            float32 (N, D), on the same device.
        """
        return self._run(pixels)

    def use_kernel(
        self, kernels: Sequence[Kernel], *, batch_clips: int, expected_clips: int | None = None
    ) -> KernelChoice:
        """Compute by the fastest of some kernels from now on; the model is in float32 on a CPU.

        If the model cannot be prepared for it, the first of them is used.

        Args:
            kernels: Those to choose from, as `find_kernels` returns them.
            batch_clips: Clips per batch.
            expected_clips: As in `choose_kernel`.

        Returns:
            The choice, once: the torch model is no longer there afterwards if another is used.

        Raises:
            InvalidInputError: There is only one kernel, and it cannot compute this model.
        """
        # Tracing looks at all attributes of a model, and transformers comments on some.
        with quiet_transformers():
            return self._use_kernel(kernels, batch_clips, expected_clips)

    def _use_kernel(
        self, kernels: Sequence[Kernel], batch_clips: int, expected_clips: int | None
    ) -> KernelChoice:
        model: Any = self._run
        choice = choose_kernel(
            kernels,
            lambda: self._layer_sample(batch_clips),
            fingerprint=self._spec.fingerprint,
            expected_clips=expected_clips,
        )
        try:
            self._run = choice.kernel.prepare(model, self._noise(1))
        # Whatever the conversion raises, torch can compute the model.
        except Exception as err:
            failed = f"{choice.kernel.name!r} fails: {first_line(err)}"
            if len(kernels) == 1:
                raise InvalidInputError(f"{self._spec.encoder}: kernel {failed}") from err
            logger.warning("%s: kernel %s; using %s", self._spec.encoder, failed, kernels[0].name)
            choice = replace(choice, kernel=kernels[0], reason=f"kernel {failed}")
            self._run = kernels[0].prepare(model, self._noise(1))
        return choice

    def _layer_sample(self, batch_clips: int) -> LayerSample:
        model: Any = self._run
        layer, states = model.first_layer(self._noise(1))
        tokens = states.shape[1]
        some = self._row_tokens * max(1, _SAMPLE_TOKENS // self._row_tokens)
        # A class token is not in the rows.
        some = min(tokens, some + tokens - self.tokens)
        clips = max(1, min(batch_clips, _SAMPLE_TOKENS // some))
        # Products grow with the number of tokens, attention with its square.
        linear = 6 * self._spec.dim
        share = some * (linear + some) / (tokens * (linear + tokens))
        return LayerSample(
            # A kernel may change its model.
            make=lambda: copy.deepcopy(layer),
            states=states[:, :some].repeat(clips, 1, 1),
            layers=len(model.layers),
            clips=clips * share / len(model.layers),
        )

    def use_prepared(self, kernel: Kernel) -> None:
        """Compute by a kernel that does not need the torch model, which is freed."""
        model: Any = self._run
        self._run = kernel.prepare(model, self._noise(1))

    def torch_model(self) -> torch.nn.Module:
        """The model, from normalised pixels to vectors.

        Raises:
            InvalidInputError: Another kernel has replaced it.
        """
        import torch

        if not isinstance(self._run, torch.nn.Module):
            raise InvalidInputError(
                f"{self._spec.encoder}: load it with kernel 'torch-float32' to quantize it"
            )
        return self._run

    def _noise(self, clips: int) -> torch.Tensor:
        """An input of random pixels, the same at each call."""
        import torch

        shape = (clips, self._spec.frames, 3, *self._spec.crop)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def replace_patch_convolutions(module: torch.nn.Module) -> None:
    """Compute patch embeddings by a matrix product instead of a 3D convolution, in place.

    The result is the same. In bfloat16 cuDNN's convolution was many times slower in every memory
    format, since some of its releases lack kernels for it.
    """
    import torch

    class PatchProjection(torch.nn.Module):
        def __init__(self, convolution: torch.nn.Conv3d) -> None:
            super().__init__()
            self.weight, self.bias = convolution.weight, convolution.bias

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            time, height, width = self.weight.shape[2:]
            batch, channels, *sides = pixels.shape
            steps = [side // size for side, size in zip(sides, (time, height, width), strict=True)]
            patches = pixels[..., : steps[0] * time, : steps[1] * height, : steps[2] * width]
            patches = patches.reshape(
                batch, channels, steps[0], time, steps[1], height, steps[2], width
            )
            patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
            tokens = torch.nn.functional.linear(patches, self.weight.flatten(1), self.bias)
            return tokens.permute(0, 4, 1, 2, 3)

    for name, child in module.named_children():
        if isinstance(child, torch.nn.Conv3d) and child.kernel_size == child.stride:
            setattr(module, name, PatchProjection(child))
        else:
            replace_patch_convolutions(child)


def select_tokens(model: Any, kept: list[int], *, positions: int, times: int) -> None:
    """Let a VideoMAE see only some of its tokens: the same positions at all times.

    The result equals that of the model's own `bool_masked_pos`. A boolean mask would be
    converted to indices on the CPU and copied for each batch; these indices are on the device.

    Args:
        model: A VideoMAEModel, changed in place.
        kept: Indices of the spatial positions that are kept.
        positions: Number of spatial positions.
        times: Number of positions in time.
    """
    import torch

    class SelectedTokens(torch.nn.Module):
        def __init__(self, embeddings: torch.nn.Module) -> None:
            super().__init__()
            self.embeddings = embeddings
            indices = torch.tensor(kept) + positions * torch.arange(times)[:, None]
            self.kept: torch.Tensor
            self.register_buffer("kept", indices.flatten(), persistent=False)

        def forward(self, pixels: torch.Tensor, _: None) -> torch.Tensor:
            tokens: torch.Tensor = self.embeddings(pixels, None)
            return tokens.index_select(1, self.kept)

    model.embeddings = SelectedTokens(model.embeddings)


def move_position_tables(model: Any, *, device: torch.device, dtype: torch.dtype) -> None:
    """Move position embeddings that are plain tensors to the model's device.

    VideoMAE's table is neither a parameter nor a buffer, so `to` leaves it on the CPU, and each
    forward would copy it to the device and wait for the copy.
    """
    import torch

    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.Tensor) and not isinstance(table, torch.nn.Parameter):
            module.position_embeddings = table.to(device, dtype)


def _fc_norm(checkpoint: Checkpoint) -> Any:
    """The LayerNorm that a classification checkpoint applies to its pooled tokens."""
    import torch

    # torch's default epsilon, not the configuration's: the classifier in transformers uses it.
    norm = torch.nn.LayerNorm(checkpoint.config["hidden_size"])
    found = checkpoint.weights.tensors(["fc_norm.weight", "fc_norm.bias"])
    norm.load_state_dict(
        {name.removeprefix("fc_norm."): value.float() for name, value in found.items()}
    )
    return norm


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers and the hub client from writing to stderr and sending telemetry."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # transformers would start a thread that asks the hub to convert a .bin file.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as hf_logging

        before = hf_logging.get_verbosity()
        hf_logging.set_verbosity(logging.CRITICAL)
        hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            hf_logging.set_verbosity(before)
