"""The frozen video encoder: clips in, vectors out."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.encoder.checkpoint import Checkpoint, find_checkpoint
from coinml.encoder.device_queue import DeviceQueue, pin
from coinml.encoder.devices import find_dtype, is_out_of_memory
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.sampling import DEFAULT, Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError, LocalError
from coinml.media import ClipSpec
from coinml.runtime.devices import find_device

if TYPE_CHECKING:
    import mmap

    import torch
    from numpy.typing import NDArray

    from coinml.encoder.backbone import Backbone

logger = logging.getLogger(__name__)

_MOST_CLIPS, _MOST_CLIPS_CUDA = 64, 256
"""More clips at once gain nothing, however small the encoder."""
_MOST_TOKENS_CUDA = 200_000
"""Likewise, however large the GPU: these are 127 clips of VideoMAE-base."""
_MEMORY_WAITS_S = (0.0, 1.0, 4.0)
"""Seconds after each try to bring a clip to a device whose memory is used up."""


def load_encoder(
    ref: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    sampling: Sampling = DEFAULT,
) -> ClipEncoder:
    """Load a checkpoint of one of `architectures.ARCHITECTURES`.

    Args:
        ref: Hub id ("MCG-NJU/videomae-base") or a folder written by `save_pretrained`.
        revision: Branch, tag or commit on the hub.
        device: `auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`.
        dtype: `auto` (bfloat16 or float16 on CUDA, float32 on a CPU that has no tiles for
            bfloat16), `float32`, `bfloat16`, `float16`.
        sampling: How videos become its input.

    Raises:
        InvalidInputError: No such checkpoint, or one of a family that is not known; a value is
            none that is allowed.
        TransientError: The hub does not answer.
    """
    from coinml.encoder.backbone import load_backbone

    checkpoint = find_checkpoint(ref, revision=revision)
    spec = checkpoint.spec(sampling)
    _clip_spec(spec)
    place = find_device(device)
    kind = find_dtype(dtype, place)
    backbone = load_backbone(checkpoint, spec, device=place, dtype=kind)
    return ClipEncoder(
        spec=spec, checkpoint=checkpoint, backbone=backbone, device=place, dtype=kind
    )


class ClipEncoder:
    """A loaded encoder; see `load_encoder`. Several threads may use it at once.

    Attributes:
        spec: What its vectors mean.
        device: Where it runs.
    """

    def __init__(
        self,
        *,
        spec: EncoderSpec,
        checkpoint: Checkpoint,
        backbone: Backbone,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self._checkpoint = checkpoint
        self.device = device
        self._dtype = dtype
        self._backbone = backbone
        self._preprocessor = Preprocessor(
            resize=spec.resize,
            crop=spec.crop,
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
        )
        self._batch: int | None = None
        self._most: int | None = None
        self._queue = DeviceQueue(device)

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

    def clip_spec(self, snap: str = "exact") -> ClipSpec:
        """How clips are to be sampled for it.

        Args:
            snap: Where a clip may begin, as `ClipSpec` has it.

        Raises:
            InvalidInputError: Such a rule is not known.
        """
        return _clip_spec(self.spec, snap)

    @property
    def batch_clips(self) -> int:
        """Number of clips that go through the model at once, from the memory there is."""
        if self._batch is None:
            self._batch = self._fitting_batch()
        return min(self._batch, self._most or self._batch)

    @property
    def pin(self) -> Callable[[mmap.mmap], Callable[[], None] | None]:
        """Takes memory that frames will come in, so that the device reads it directly.

        For `DecodePool`; it holds on to the device and not to this encoder.
        """
        return partial(pin, self.device)

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
            LocalError: The device has not even the memory for one clip.
        """
        if not len(clips):
            return np.empty((0, self.dim), dtype=np.float32)
        return self.encode_prepared([self.prepare(clip) for clip in clips], batch_clips=batch_clips)

    def prepare(self, clip: NDArray[np.uint8]) -> torch.Tensor:
        """Bring one clip to the encoder's size, on its device.

        On a GPU this happens beside what that computes: each thread has its own stream.

        Args:
            clip: uint8 (frames, height, width, 3).

        Returns:
            uint8 (frames, 3, crop height, crop width).

        Raises:
            InvalidInputError: It has another number of frames than the encoder takes.
            LocalError: The device has not the memory for it, even after a while.
        """
        import torch

        if clip.ndim != 4 or clip.shape[0] != self.spec.frames or clip.shape[3] != 3:
            raise InvalidInputError(
                f"a clip is ({self.spec.frames}, height, width, 3), not {clip.shape}"
            )
        with warnings.catch_warnings():
            # Clips may lie in read-only memory, and nothing here writes to them.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            frames = torch.from_numpy(np.ascontiguousarray(clip))
        for wait_s in _MEMORY_WAITS_S:
            try:
                return self._queue.bring(frames, self._preprocessor.resized)
            except (MemoryError, RuntimeError) as err:
                if not is_out_of_memory(err):
                    raise
            # Not within the handler, which holds on to the tensors that did not fit.
            self._queue.free_memory()
            if wait_s:
                # What is encoded at the moment will be free then, and what follows is smaller.
                self._halve(self.batch_clips)
                time.sleep(wait_s)
        raise LocalError(f"the frames of one clip do not fit the memory of {self.device}")

    def encode_prepared(
        self, clips: Sequence[torch.Tensor], *, batch_clips: int | None = None
    ) -> NDArray[np.float32]:
        """Turn what `prepare` gave into vectors: float32 (N, D).

        A batch that does not fit the device's memory is halved and tried again, and later ones
        are as small. On a GPU another thread's batch is queued while this one waits for its
        vectors.

        Raises:
            LocalError: The device has not even the memory for one clip.
        """
        size = batch_clips or self.batch_clips
        waits: list[Callable[[], NDArray[np.float32]]] = []
        start = 0
        while start < len(clips):
            batch = clips[start : start + min(size, self._most or size)]
            try:
                waits.append(self._queue.launch(partial(self._vectors, batch)))
            except (MemoryError, RuntimeError) as err:
                if not is_out_of_memory(err):
                    raise
                if len(batch) == 1:
                    raise LocalError(f"not even one clip fits the memory of {self.device}") from err
                self._halve(len(batch))
            else:
                start += len(batch)
                continue
            # Not within the handler, which holds on to the tensors that did not fit.
            self._queue.free_memory()
        return np.concatenate([wait() for wait in waits])

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

    def _halve(self, clips: int) -> None:
        """Let no later batch have more than half as many clips."""
        self._most = max(1, clips // 2)
        logger.warning(
            "out of memory on %s: going on with %d clips at once", self.device, self._most
        )

    def _vectors(self, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        pixels = self._preprocessor.normalised(torch.stack(list(clips)), dtype=self._dtype)
        return self._backbone(pixels)

    def _blank(self, clips: int) -> torch.Tensor:
        import torch

        shape = (clips, self.spec.frames, 3, *self.spec.crop)
        return torch.zeros(shape, dtype=self._dtype, device=self.device)

    def _fitting_batch(self) -> int:
        tokens, width = self._backbone.tokens, self._backbone.width
        if self.device.type != "cuda":
            # More than this gains nothing on a CPU: 4 clips of the base model, 64 of a tiny one.
            return int(np.clip(5_000_000 // (tokens * width), 1, _MOST_CLIPS))
        # The rest is for the clips that wait, before and after they are resized.
        fitting = self._queue.fitting(lambda n: self._backbone(self._blank(n)), part=0.6)
        return max(1, min(fitting, _MOST_TOKENS_CUDA // tokens, _MOST_CLIPS_CUDA))


def _clip_spec(spec: EncoderSpec, snap: str = "exact") -> ClipSpec:
    return ClipSpec(
        clips=spec.clips,
        frames=spec.frames,
        stride=spec.stride,
        snap=snap,  # type: ignore[arg-type]
        short=spec.short,  # type: ignore[arg-type]
    )
