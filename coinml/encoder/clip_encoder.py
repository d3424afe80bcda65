"""The frozen video encoder: clips in, vectors out."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.encoder.batch_size import cpu_batch, cuda_batch
from coinml.encoder.checkpoint import QUANTIZED_FILE, Checkpoint, find_checkpoint
from coinml.encoder.device_queue import DeviceQueue, pin
from coinml.encoder.devices import find_dtype, is_out_of_memory
from coinml.encoder.kernels import AUTO, check_kernel_name, find_kernels
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.sampling import DEFAULT, INT8, Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError, LocalError
from coinml.media import ClipSpec
from coinml.runtime.cpus import cpu_count
from coinml.runtime.devices import find_device

if TYPE_CHECKING:
    import mmap

    import torch
    from numpy.typing import NDArray

    from coinml.encoder.backbone import Backbone
    from coinml.encoder.kernel_choice import KernelChoice

logger = logging.getLogger(__name__)

_MEMORY_WAITS_S = (0.0, 1.0, 4.0)
"""Wait in seconds after each failed attempt to upload a clip to a device without free memory."""


def load_encoder(
    ref: str | Path,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    kernel: str = "auto",
    sampling: Sampling = DEFAULT,
    quantized: Path | None = None,
    expected_clips: int | None = None,
) -> ClipEncoder:
    """Load a checkpoint of one of the families in `architectures.ARCHITECTURES`.

    Args:
        ref: Hub id ("MCG-NJU/videomae-base"), a folder written by `save_pretrained`, or `tiny`.
        revision: Branch, tag or commit on the hub.
        device: `auto` (CUDA if available), `cpu`, `cuda`, `cuda:1`.
        dtype: `auto` (on CUDA bfloat16 or float16; on a CPU that of the kernel), `float32`,
            `bfloat16`, `float16`.
        kernel: How it is computed on a CPU: `auto` (the fastest, measured once for a machine and
            an encoder) or a name of `kernels.KERNELS`.
        sampling: How videos are sampled, and the precision.
        quantized: File of the quantized model, for precision "int8"; by default the checkpoint's.
        expected_clips: Number of clips to encode, for which preparing a kernel must pay; None if it
            is not known.

    Raises:
        InvalidInputError: There is no such checkpoint, its family is not supported, a value is
            not allowed, the kernel is not available, or there is no quantized model.
        TransientError: The hub does not answer.
    """
    import torch

    from coinml.encoder.backbone import load_backbone

    check_kernel_name(kernel)
    checkpoint = find_checkpoint(ref, revision=revision)
    if quantized is not None:
        checkpoint = replace(checkpoint, quantized=quantized)
    spec = checkpoint.spec(sampling)
    _clip_spec(spec)
    if sampling.precision == INT8:
        return _load_int8(checkpoint, spec, device=device, dtype=dtype, kernel=kernel)
    torch_device = find_device(device)
    torch_dtype = find_dtype(dtype, torch_device)
    if torch_device.type != "cpu":
        if kernel != AUTO:
            raise InvalidInputError(f"kernel {kernel!r} is for a CPU; the device is {torch_device}")
        backbone = load_backbone(checkpoint, spec, device=torch_device, dtype=torch_dtype)
        return ClipEncoder(spec, checkpoint, backbone, device=torch_device, dtype=torch_dtype)
    kernels = find_kernels(kernel, dtype=dtype)
    # A kernel takes pixels and a model in float32, whatever it computes in.
    backbone = load_backbone(checkpoint, spec, device=torch_device, dtype=torch.float32)
    choice = backbone.use_kernel(
        kernels,
        batch_clips=cpu_batch(backbone, kernels[0]),
        expected_clips=expected_clips,
    )
    return ClipEncoder(
        spec, checkpoint, backbone, device=torch_device, dtype=torch.float32, kernel=choice
    )


def _load_int8(
    checkpoint: Checkpoint, spec: EncoderSpec, *, device: str, dtype: str, kernel: str
) -> ClipEncoder:
    import torch

    from coinml.encoder.backbone import load_backbone
    from coinml.encoder.int8_model import int8_kernel
    from coinml.encoder.kernel_choice import KernelChoice

    for what, value in (("dtype", dtype), ("kernel", kernel)):
        if value != AUTO:
            raise InvalidInputError(f"{what} {value!r} is not for precision 'int8'")
    if device not in (AUTO, "cpu"):
        raise InvalidInputError(
            f"precision 'int8' is for a CPU; the device is {device}: COINML_DEVICE=cpu"
        )
    place = torch.device("cpu")
    chosen = int8_kernel(checkpoint.quantized or checkpoint.folder / QUANTIZED_FILE, spec)
    backbone = load_backbone(checkpoint, spec, device=place, dtype=torch.float32)
    backbone.use_prepared(chosen)
    return ClipEncoder(
        spec,
        checkpoint,
        backbone,
        device=place,
        dtype=torch.float32,
        kernel=KernelChoice(kernel=chosen),
    )


class ClipEncoder:
    """A loaded encoder; see `load_encoder`. Thread-safe.

    Attributes:
        spec: The specification of its vectors.
        checkpoint: The files that it was loaded from.
        device: The device that it runs on.
        kernel: How it is computed, and why; None on a GPU.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        checkpoint: Checkpoint,
        backbone: Backbone,
        *,
        device: torch.device,
        dtype: torch.dtype,
        kernel: KernelChoice | None = None,
    ) -> None:
        self.spec = spec
        self.checkpoint = checkpoint
        self.device = device
        self.kernel = kernel
        self._dtype = dtype
        self._backbone = backbone
        self._preprocessor = Preprocessor(
            resize=spec.resize,
            crop=spec.crop,
            interpolation=spec.interpolation,
            mean=spec.mean,
            std=spec.std,
        )
        self._fitting_batch: int | None = None
        self._max_batch: int | None = None
        self._queue = DeviceQueue(device)

    def __repr__(self) -> str:
        return f"ClipEncoder({self.spec.encoder!r}, {self.spec.fingerprint}, {self.device})"

    @property
    def source_dir(self) -> Path:
        """The checkpoint's folder."""
        return self.checkpoint.folder

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.spec.dim

    @property
    def dtype_name(self) -> str:
        """The dtype that it computes in: "float32", "bfloat16" or "float16"."""
        if self.kernel is not None:
            return self.kernel.kernel.dtype
        return str(self._dtype).removeprefix("torch.")

    def clip_spec(self, snap: str = "exact") -> ClipSpec:
        """How clips are sampled for this encoder.

        Args:
            snap: Where a clip may begin, as in `ClipSpec`.

        Raises:
            InvalidInputError: `snap` is not one of the allowed values.
        """
        return _clip_spec(self.spec, snap)

    @property
    def batch_clips(self) -> int:
        """Number of clips per batch, by the device's memory and earlier out-of-memory errors."""
        if self._fitting_batch is None:
            self._fitting_batch = self._find_batch()
        return min(self._fitting_batch, self._max_batch or self._fitting_batch)

    @property
    def pin(self) -> Callable[[mmap.mmap], Callable[[], None] | None]:
        """Pins the memory that a `DecodePool` puts frames in, so that a GPU reads it directly.

        The function holds a reference to the device and not to this encoder.
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
            batch_clips: Number of clips per batch; if None, `self.batch_clips`.

        Returns:
            float32 (N, D).

        Raises:
            InvalidInputError: A clip has the wrong number of frames.
            LocalError: One clip alone does not fit the device's memory.
        """
        if not len(clips):
            return np.empty((0, self.dim), dtype=np.float32)
        return self.encode_prepared([self.prepare(clip) for clip in clips], batch_clips=batch_clips)

    def prepare(self, clip: NDArray[np.uint8]) -> torch.Tensor:
        """Resize and crop one clip to the encoder's input size, on its device.

        On a GPU this runs concurrently with the batches, on a stream of its own.

        Args:
            clip: uint8 (frames, height, width, 3).

        Returns:
            uint8 (frames, 3, crop height, crop width).

        Raises:
            InvalidInputError: The clip has the wrong number of frames.
            LocalError: The clip does not fit the device's memory, even after several attempts.
        """
        import torch

        if clip.ndim != 4 or clip.shape[0] != self.spec.frames or clip.shape[3] != 3:
            raise InvalidInputError(
                f"a clip is ({self.spec.frames}, height, width, 3), not {clip.shape}"
            )
        with warnings.catch_warnings():
            # torch warns of read-only arrays; nothing here writes to the frames.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            frames = torch.from_numpy(np.ascontiguousarray(clip))
        for wait_s in _MEMORY_WAITS_S:
            try:
                return self._queue.upload(frames, self._preprocessor.resized)
            except (MemoryError, RuntimeError) as err:
                if not is_out_of_memory(err):
                    raise
            # Outside the handler: the exception holds references to the tensors that did not fit.
            self._queue.free_memory()
            if wait_s:
                # The running batch frees its memory by then, and later batches are smaller.
                self._halve(self.batch_clips)
                time.sleep(wait_s)
        raise LocalError(f"the frames of one clip do not fit the memory of {self.device}")

    def encode_prepared(
        self, clips: Sequence[torch.Tensor], *, batch_clips: int | None = None
    ) -> NDArray[np.float32]:
        """Turn prepared clips into vectors: float32 (N, D).

        If a batch does not fit the device's memory, this and later batches are halved. On a GPU,
        another thread can queue its batch while this thread waits for its vectors.

        Raises:
            LocalError: One clip alone does not fit the device's memory.
        """
        size = batch_clips or self.batch_clips
        if self.device.type == "cpu" and batch_clips is None:
            # The caller has all cores, and some kernels compute a clip with one.
            size = max(size, cpu_count())
        waits: list[Callable[[], NDArray[np.float32]]] = []
        start = 0
        while start < len(clips):
            batch = clips[start : start + min(size, self._max_batch or size)]
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
            # Outside the handler: the exception holds references to the tensors that did not fit.
            self._queue.free_memory()
        return np.concatenate([wait() for wait in waits])

    def copy_to(self, folder: str | Path) -> Path:
        """Copy the checkpoint's files, so that a registered model contains its encoder.

        Returns:
            The folder, which `load_encoder` loads as an encoder with the same fingerprint.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in self.checkpoint.files:
            shutil.copyfile(file, target / file.name)
        return target

    def quantize(
        self, clips: Sequence[NDArray[np.uint8]], *, names: Sequence[object] = ()
    ) -> tuple[EncoderSpec, bytes]:
        """Quantize the model with the scales of some clips; this encoder is not used afterwards.

        Args:
            clips: As `encode` takes them.
            names: What the clips are, as JSON values; kept in the file.

        Returns:
            The spec of the quantized encoder, and the content of a file that `load_encoder` takes
            as `quantized`.

        Raises:
            InvalidInputError: The model cannot be quantized, a package is missing, or this encoder
                is not computed by torch in float32.
        """
        import torch

        from coinml.encoder.int8_model import calibration_sha256, quantize

        prepared = [self.prepare(clip) for clip in clips]
        batches = [
            self._preprocessor.normalised(pixels[None], dtype=torch.float32) for pixels in prepared
        ]
        spec = replace(self.spec, precision=INT8, calibration_sha256=calibration_sha256(prepared))
        return spec, quantize(self._backbone.torch_model(), batches, spec, clips=names)

    def _halve(self, clips: int) -> None:
        """Limit later batches to half as many clips."""
        self._max_batch = max(1, clips // 2)
        logger.warning(
            "out of memory on %s: continuing with %d clips per batch", self.device, self._max_batch
        )

    def _vectors(self, clips: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        pixels = self._preprocessor.normalised(torch.stack(list(clips)), dtype=self._dtype)
        return self._backbone(pixels)

    def _find_batch(self) -> int:
        if self.device.type != "cuda":
            assert self.kernel is not None
            return cpu_batch(self._backbone, self.kernel.kernel)
        return cuda_batch(self._backbone, self._queue, self._zeros)

    def _zeros(self, clips: int) -> torch.Tensor:
        import torch

        shape = (clips, self.spec.frames, 3, *self.spec.crop)
        return torch.zeros(shape, dtype=self._dtype, device=self.device)


def _clip_spec(spec: EncoderSpec, snap: str = "exact") -> ClipSpec:
    return ClipSpec(
        clips=spec.clips,
        frames=spec.frames,
        stride=spec.stride,
        snap=snap,  # type: ignore[arg-type]
        short=spec.short,  # type: ignore[arg-type]
    )
