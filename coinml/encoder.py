"""The frozen video encoder: clips in, vectors out. The only importer of transformers."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.checkpoint import Checkpoint, find_checkpoint, first_line
from coinml.errors import InvalidInputError, LocalError
from coinml.media import ClipSpec
from coinml.preprocessing import Preprocessor
from coinml.specs import EncoderSpec
from coinml.tubes import kept_places

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_encoder(
    ref: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    clips: int = 8,
    frames: int | None = None,
    stride: int = 4,
    dtype: str = "auto",
    keep_tokens: float = 1.0,
    keep_seed: int = 0,
) -> ClipEncoder:
    """Load a VideoMAE checkpoint.

    Args:
        ref: Hub id ("MCG-NJU/videomae-base") or a folder written by `save_pretrained`.
        revision: Branch, tag or commit on the hub.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`.
        clips: Number of clips a video.
        frames: Number of frames a clip; the checkpoint's own if None.
        stride: Distance between a clip's frames, in frames.
        dtype: `auto` (bfloat16 or float16 on CUDA, float32 on a CPU), `float32`, `bfloat16`,
            `float16`.
        keep_tokens: Part of the tokens that the model sees, above 0 and at most 1: the same
            places in every frame. Less is faster (a quarter of the tokens takes less than a
            quarter of the time) and another spec.
        keep_seed: Seed of the choice of places.

    Raises:
        InvalidInputError: No such checkpoint, or one that is not a VideoMAE; a value is none
            that is allowed.
        TransientError: The hub does not answer.
    """
    import torch

    checkpoint = find_checkpoint(ref, revision=revision)
    spec = checkpoint.spec(
        clips=clips, frames=frames, stride=stride, keep_tokens=keep_tokens, keep_seed=keep_seed
    )
    _clip_spec(spec)
    place = _device(device)
    kind = _dtype(dtype, place)
    with _quiet_transformers(), torch.device("cpu"):
        from transformers import VideoMAEModel

        try:
            model = VideoMAEModel.from_pretrained(
                checkpoint.folder, local_files_only=True, dtype=kind, attn_implementation="sdpa"
            )
        except Exception as err:
            # Whatever it meets in the files of a folder, the folder is what must change.
            raise InvalidInputError(f"{ref}: does not load: {first_line(err)}") from err
    norm = _fc_norm(checkpoint) if spec.pooling == "mean+fc_norm" else None
    return ClipEncoder(
        spec=spec, checkpoint=checkpoint, model=model, norm=norm, device=place, dtype=kind
    )


def read_spec(
    ref: str | Path,
    *,
    revision: str | None = None,
    clips: int = 8,
    frames: int | None = None,
    stride: int = 4,
    keep_tokens: float = 1.0,
    keep_seed: int = 0,
) -> EncoderSpec:
    """The spec that `load_encoder` would give, in a moment: nothing is loaded.

    Raises:
        InvalidInputError: No such checkpoint, or one that is not a VideoMAE; a value is none
            that is allowed.
        TransientError: The hub does not answer.
    """
    spec = find_checkpoint(ref, revision=revision).spec(
        clips=clips, frames=frames, stride=stride, keep_tokens=keep_tokens, keep_seed=keep_seed
    )
    _clip_spec(spec)
    return spec


class ClipEncoder:
    """A loaded encoder; see `load_encoder`.

    Attributes:
        spec: What its vectors mean.
        device: Where it runs.
    """

    def __init__(
        self,
        *,
        spec: EncoderSpec,
        checkpoint: Checkpoint,
        model: Any,
        norm: Any | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self._checkpoint = checkpoint
        self.device = device
        self._dtype = dtype
        self._model = model.to(device).eval().requires_grad_(False)
        self._norm = None if norm is None else norm.to(device).eval().requires_grad_(False)
        self._preprocessor = Preprocessor(
            resize=spec.resize,
            crop=spec.crop,
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
        )
        self._hidden = None if spec.keep_tokens == 1 else self._hidden_tokens()
        self._batch: int | None = None

    def __repr__(self) -> str:
        return f"ClipEncoder({self.spec.encoder!r}, {self.spec.fingerprint}, {self.device})"

    @property
    def source_dir(self) -> Path:
        """The checkpoint's folder."""
        return self._checkpoint.folder

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.spec.dim

    @property
    def dtype_name(self) -> str:
        """What it computes in: "float32", "bfloat16" or "float16"."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def clip_spec(self) -> ClipSpec:
        """How clips are to be sampled for it."""
        return _clip_spec(self.spec)

    @property
    def batch_clips(self) -> int:
        """Number of clips that go through the model at once, from the memory there is."""
        if self._batch is None:
            self._batch = self._fitting_batch()
        return self._batch

    def encode(
        self,
        clips: Sequence[NDArray[np.uint8]] | NDArray[np.uint8],
        *,
        batch_clips: int | None = None,
    ) -> NDArray[np.float32]:
        """Turn clips into vectors.

        Args:
            clips: uint8 (frames, height, width, 3) each, RGB; sizes may differ.
            batch_clips: Number of clips that go through the model at once.

        Returns:
            float32 (N, D).

        Raises:
            InvalidInputError: A clip has another number of frames than the encoder takes.
        """
        if not len(clips):
            return np.empty((0, self.dim), dtype=np.float32)
        return self.encode_prepared([self.prepare(clip) for clip in clips], batch_clips=batch_clips)

    def prepare(self, clip: NDArray[np.uint8]) -> torch.Tensor:
        """Bring one clip to the encoder's size, on its device.

        Args:
            clip: uint8 (frames, height, width, 3).

        Returns:
            uint8 (frames, 3, crop height, crop width).
        """
        import torch

        if clip.ndim != 4 or clip.shape[0] != self.spec.frames or clip.shape[3] != 3:
            raise InvalidInputError(
                f"a clip is ({self.spec.frames}, height, width, 3), not {clip.shape}"
            )
        with warnings.catch_warnings():
            # Decoded clips lie in read-only shared memory, and nothing here writes to them.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            frames = torch.from_numpy(np.ascontiguousarray(clip))
        return self._preprocessor.resized(frames.to(self.device, non_blocking=True))

    def encode_prepared(
        self, clips: Sequence[torch.Tensor], *, batch_clips: int | None = None
    ) -> NDArray[np.float32]:
        """Turn what `prepare` gave into vectors: float32 (N, D).

        A batch that does not fit the device's memory is halved and tried again, and later ones
        are as small.
        """
        import torch

        size = batch_clips or self.batch_clips
        vectors: list[NDArray[np.float32]] = []
        start = 0
        while start < len(clips):
            batch = clips[start : start + size]
            try:
                vectors.append(self._forward(torch.stack(list(batch))))
            except torch.OutOfMemoryError as err:
                if len(batch) == 1:
                    raise LocalError(f"not even one clip fits the memory of {self.device}") from err
                size = self._batch = len(batch) // 2
                torch.cuda.empty_cache()
                logger.warning("out of memory on %s: going on with %d clips", self.device, size)
                continue
            start += len(batch)
        return np.concatenate(vectors)

    def copy_to(self, folder: str | Path) -> Path:
        """Copy the checkpoint's files, so that a model can carry its encoder.

        Returns:
            The folder, from which `load_encoder` gives an encoder of the same fingerprint.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in self._checkpoint.files:
            shutil.copyfile(file, target / file.name)
        return target

    def _forward(self, pictures: torch.Tensor) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            pixels = self._preprocessor.normalised(pictures, dtype=self._dtype)
            hidden = self._hidden
            if hidden is not None:
                hidden = hidden.expand(len(pixels), -1)
            tokens = self._model(pixel_values=pixels, bool_masked_pos=hidden).last_hidden_state
            pooled = tokens.float().mean(dim=1)
            if self._norm is not None:
                pooled = self._norm(pooled)
            result: NDArray[np.float32] = pooled.cpu().numpy()
        return result

    def _grid(self) -> tuple[int, int]:
        """Number of tokens along the time, and in one place of it."""
        config = self._model.config
        places = (config.image_size // config.patch_size) ** 2
        return config.num_frames // config.tubelet_size, places

    def _hidden_tokens(self) -> torch.Tensor:
        """Which tokens the model does not see: bool (1, tokens)."""
        import torch

        times, places = self._grid()
        hidden = torch.ones(places, dtype=torch.bool)
        kept = kept_places(places, keep_tokens=self.spec.keep_tokens, keep_seed=self.spec.keep_seed)
        hidden[kept] = False
        return hidden.repeat(times)[None].to(self.device)

    def _fitting_batch(self) -> int:
        import torch

        config = self._model.config
        times, places = self._grid()
        tokens = max(1, round(times * places * self.spec.keep_tokens))
        values = tokens * max(config.hidden_size, config.num_channels * config.patch_size**2)
        if self.device.type != "cuda":
            # More than this gains nothing on a CPU: 4 clips of the base model, 64 of a tiny one.
            return int(np.clip(5_000_000 // values, 1, 64))
        free, _ = torch.cuda.mem_get_info(self.device)
        return int(np.clip(0.5 * free // (values * 24 * self._dtype.itemsize), 1, 256))


def _clip_spec(spec: EncoderSpec) -> ClipSpec:
    return ClipSpec(
        clips=spec.clips,
        frames=spec.frames,
        stride=spec.stride,
        short=spec.short,  # type: ignore[arg-type]
    )


def _fc_norm(checkpoint: Checkpoint) -> Any:
    """The norm that a classification checkpoint puts on its pooled tokens."""
    import torch

    config = checkpoint.config
    norm = torch.nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
    if checkpoint.weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(checkpoint.weights, framework="pt") as file:
            found = {name: file.get_tensor(f"fc_norm.{name}") for name in ("weight", "bias")}
    else:
        loaded = torch.load(checkpoint.weights, map_location="cpu", weights_only=True, mmap=True)
        found = {name: loaded[f"fc_norm.{name}"] for name in ("weight", "bias")}
    norm.load_state_dict({name: value.float() for name, value in found.items()})
    return norm


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise InvalidInputError(f"device {name!r} is unknown; say auto, cpu or cuda") from err
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError(f"device {name!r}: there is no CUDA here; say auto or cpu")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    import torch

    if name not in _DTYPES:
        raise InvalidInputError(f"dtype {name!r} is unknown; known: {', '.join(_DTYPES)}")
    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if device.type != "cuda":
        # Without units for it, bfloat16 is three times slower on a CPU.
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


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
