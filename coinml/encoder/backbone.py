"""The frozen model behind an encoder: pixels in, pooled vectors out.

The only importer of transformers, beside the miniature's trainer.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coinml.encoder.checkpoint import Checkpoint, first_line
from coinml.encoder.spec import EncoderSpec
from coinml.encoder.token_masking import kept_places
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def load_backbone(
    checkpoint: Checkpoint, spec: EncoderSpec, *, device: torch.device, dtype: torch.dtype
) -> Backbone:
    """Load a checkpoint's model onto a device.

    Raises:
        InvalidInputError: Its files do not load, or lack some of the model's weights.
    """
    import torch

    architecture = checkpoint.architecture
    with _quiet_transformers(), torch.device("cpu"):
        import transformers

        try:
            model, found = getattr(transformers, architecture.model_class).from_pretrained(
                checkpoint.folder,
                local_files_only=True,
                dtype=dtype,
                attn_implementation=architecture.attention,
                output_loading_info=True,
                **architecture.load_options,
            )
        except Exception as err:
            # Whatever it meets in the files of a folder, the folder is what must change.
            raise InvalidInputError(f"{checkpoint.ref}: does not load: {first_line(err)}") from err
    if missing := found["missing_keys"]:
        # transformers would go on with random ones.
        raise InvalidInputError(
            f"{checkpoint.ref}: {checkpoint.weights.main.name} lacks {len(missing)} of the model's "
            f"weights, {min(missing)} for one"
        )
    return Backbone(checkpoint, spec, model=model, device=device, dtype=dtype)


class Backbone:
    """A loaded model; see `load_backbone`.

    Attributes:
        tokens: Number of tokens that a clip becomes, of those that the model sees.
        width: Greatest number of values that a token has, at the entrance or within.
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
        self._architecture = checkpoint.architecture
        self._class_token = spec.pooling.endswith("+cls")
        if device.type == "cuda":
            replace_patch_convolutions(model)
        self._model = model.to(device).eval().requires_grad_(False)
        norm = _fc_norm(checkpoint) if spec.pooling == "mean+fc_norm" else None
        self._norm = None if norm is None else norm.to(device).eval().requires_grad_(False)
        times, places = self._architecture.grid(checkpoint.config, spec.frames)
        kept = kept_places(places, keep_tokens=spec.keep_tokens, keep_seed=spec.keep_seed)
        self._hidden = None if spec.keep_tokens == 1 else _hidden_tokens(times, places, kept)
        self.tokens = times * len(kept)
        pixels_each = 3 * spec.frames * spec.crop[0] * spec.crop[1] // (times * places)
        self.width = max(spec.dim, pixels_each)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn normalised pixels into vectors.

        Args:
            pixels: (N, frames, 3, height, width) in the model's type, on its device.

        Returns:
            float32 (N, D), on the same device.
        """
        import torch

        inputs = {self._architecture.input_name: pixels, **self._architecture.call_options}
        if self._hidden is not None:
            inputs["bool_masked_pos"] = self._hidden.expand(len(pixels), -1)
        tokens = self._model(**inputs).last_hidden_state
        if self._class_token:
            pooled = tokens[:, 0].float()
        else:
            pooled = tokens.mean(dim=1, dtype=torch.float32)
        vectors: torch.Tensor = pooled if self._norm is None else self._norm(pooled)
        return vectors


def replace_patch_convolutions(module: torch.nn.Module) -> None:
    """Compute a clip's patches by one matrix product instead of a three-dimensional convolution.

    It is the same sum. cuDNN has been many times slower at it in bfloat16, whatever the order in
    memory (it has no such kernels in some of its releases).
    """
    import torch

    class PatchProduct(torch.nn.Module):
        def __init__(self, convolution: torch.nn.Conv3d) -> None:
            super().__init__()
            self.weight, self.bias = convolution.weight, convolution.bias

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            time, height, width = self.weight.shape[2:]
            batch, colours, *sides = pixels.shape
            steps = [side // cell for side, cell in zip(sides, (time, height, width), strict=True)]
            cells = pixels[..., : steps[0] * time, : steps[1] * height, : steps[2] * width]
            cells = cells.reshape(batch, colours, steps[0], time, steps[1], height, steps[2], width)
            cells = cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
            tokens = torch.nn.functional.linear(cells, self.weight.flatten(1), self.bias)
            return tokens.permute(0, 4, 1, 2, 3)

    for name, child in module.named_children():
        if isinstance(child, torch.nn.Conv3d) and child.kernel_size == child.stride:
            setattr(module, name, PatchProduct(child))
        else:
            replace_patch_convolutions(child)


def _hidden_tokens(times: int, places: int, kept: list[int]) -> torch.Tensor:
    """Which tokens the model does not see: bool (1, tokens).

    It stays on the CPU, for any device: to index by a mask on a GPU would make this process wait
    for all that the GPU has to do before.
    """
    import torch

    hidden = torch.ones(places, dtype=torch.bool)
    hidden[kept] = False
    return hidden.repeat(times)[None]


def _fc_norm(checkpoint: Checkpoint) -> Any:
    """The norm that a classification checkpoint puts on its pooled tokens."""
    import torch

    # Of torch's own epsilon, whatever the configuration says: so the classifier has it.
    norm = torch.nn.LayerNorm(checkpoint.config["hidden_size"])
    found = checkpoint.weights.tensors(["fc_norm.weight", "fc_norm.bias"])
    norm.load_state_dict(
        {name.removeprefix("fc_norm."): value.float() for name, value in found.items()}
    )
    return norm


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers and the hub client from reporting on stderr and phoning home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # A thread that asks the hub to convert a .bin would outlive the load.
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
