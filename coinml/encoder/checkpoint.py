"""A checkpoint on disk or on the hub: its files and its spec, without loading the model.

A spec is computed without torch and transformers, so that commands can identify an encoder
quickly.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coinml.encoder.architectures import Architecture, architecture_of
from coinml.encoder.int8_model import calibration_of
from coinml.encoder.model_config import described, model_fields, unusual_fields
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.processor_files import PROCESSOR_FILES, read_processor
from coinml.encoder.sampling import DEFAULT, INT8, PRECISIONS, Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.encoder.token_masking import checked_masking
from coinml.encoder.weights import (
    PICKLED,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    SHARDS,
    Weights,
    find_weights,
)
from coinml.errors import InvalidInputError, TransientError

TINY = "tiny"
"""Name of the small encoder in the package."""

TINY_FOLDER = Path(__file__).parents[1] / "miniature" / "videomae-tiny"
_ADAPTER = "adapter_config.json"
QUANTIZED_FILE = "int8.zip"
"""Name of a quantized model's file, in a set's folder and among a checkpoint's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's files; see `find_checkpoint`.

    Attributes:
        ref: Hub id or folder, as the user gave it.
        folder: The folder with its files.
        commit: The hub's commit; None for a local folder.
        architecture: Its family.
        config: Its `config.json`, with the family's defaults for missing fields.
        weights: Its weights, in one file or several.
        quantized: The file of its model in int8; None if there is none.
    """

    ref: str
    folder: Path
    commit: str | None
    architecture: Architecture
    config: Mapping[str, Any]
    weights: Weights
    quantized: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All files that are needed to load it elsewhere."""
        names = ("config.json", *PROCESSOR_FILES)
        return [
            *self.weights.files,
            *(self.folder / n for n in names if (self.folder / n).is_file()),
            *(() if self.quantized is None else (self.quantized,)),
        ]

    def spec(self, sampling: Sampling = DEFAULT) -> EncoderSpec:
        """The spec of this encoder with a sampling; with precision "int8", of its quantized model.

        Raises:
            InvalidInputError: The sampling is invalid or does not fit the model, or the processor
                file is missing or not supported.
            LocalError: The quantized model's file is damaged.
        """
        if sampling.precision not in PRECISIONS:
            raise InvalidInputError(
                f"precision {sampling.precision!r}: allowed are {', '.join(PRECISIONS)}"
            )
        tensor_names = self.weights.tensor_names()
        keep_tokens, keep_seed = checked_masking(sampling.keep_tokens, sampling.keep_seed)
        if keep_tokens != 1 and not self.architecture.supports_masking:
            raise InvalidInputError(
                f"{self.ref}: keep_tokens is {keep_tokens:g}, but a {self.model_type} needs "
                "all its tokens; it must be 1"
            )
        try:
            own = self.architecture.frames(self.config, sampling.frames)
            size = self.architecture.size(self.config)
            dim = self.architecture.dim(self.config)
        except InvalidInputError as err:
            raise InvalidInputError(f"{self.ref}: {err}") from err
        preprocessor = self._preprocessor(size)
        unusual = unusual_fields(self.model_fields, self.architecture, tensor_names)
        return EncoderSpec(
            encoder=self.ref if self.commit else self.folder.resolve().name,
            revision=self.commit,
            architecture=described(self.model_type, unusual),
            weights_sha256=self.weights.sha256(),
            resize=preprocessor.resize,
            crop=preprocessor.crop,
            interpolation=preprocessor.interpolation,
            mean=preprocessor.mean,
            std=preprocessor.std,
            frames=own,
            stride=sampling.stride,
            clips=sampling.clips,
            keep_tokens=keep_tokens,
            keep_seed=keep_seed,
            pooling=self.architecture.pooling(self.config, tensor_names),
            dim=dim,
            precision=sampling.precision,
            calibration_sha256=(
                calibration_of(self.quantized)
                if sampling.precision == INT8 and self.quantized is not None
                else None
            ),
        )

    @property
    def model_fields(self) -> dict[str, Any]:
        """The fields of the configuration that the model is made from."""
        return model_fields(self.config, ref=self.ref)

    @property
    def model_type(self) -> str:
        """The name of its family in transformers."""
        return str(self.config["model_type"])

    def _preprocessor(self, size: tuple[int, int]) -> Preprocessor:
        processor = read_processor(self.folder, family=self.model_type, image_size=size)
        if processor is None:
            if not self.architecture.processor_optional:
                raise InvalidInputError(
                    f"{self.ref}: has none of {', '.join(PROCESSOR_FILES)}, which say how frames "
                    f"are preprocessed for a {self.model_type}"
                )
            # VideoMAE was trained with ImageNet's statistics; transformers' default is 0.5.
            return Preprocessor(resize=min(size), crop=size)
        if processor.crop != size and not self.architecture.variable_size:
            raise InvalidInputError(
                f"{self.ref}: the processor's crop_size is {processor.crop}, but the model "
                f"accepts frames of {size} (height, width)"
            )
        return processor


def find_checkpoint(ref: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Find a video encoder's checkpoint in a folder, in the hub's local cache or on the hub.

    Args:
        ref: Hub id ("MCG-NJU/videomae-base"), a folder written by `save_pretrained`, or `tiny` for
            the small encoder in the package.
        revision: Branch, tag or commit on the hub.

    Raises:
        InvalidInputError: There is no such checkpoint, its family is not supported, or it asks for
            other weights or code than its own.
        TransientError: The hub does not answer.
    """
    folder, commit = _resolve(str(ref), revision)
    config = _config(folder, str(ref))
    architecture = architecture_of(config, ref=str(ref))
    model_fields(config, ref=str(ref))
    if (folder / _ADAPTER).exists():
        raise InvalidInputError(
            f"encoder {str(ref)!r}: has an {_ADAPTER}, and adapters are not applied; merge it "
            "into the model's weights (peft: merge_and_unload) and save that"
        )
    return Checkpoint(
        ref=str(ref),
        folder=folder,
        commit=commit,
        architecture=architecture,
        config={**architecture.defaults, **config},
        weights=find_weights(folder, ref=str(ref)),
        quantized=quantized if (quantized := folder / QUANTIZED_FILE).is_file() else None,
    )


def first_line(err: BaseException) -> str:
    """The first line of an error's message, shortened to 200 characters."""
    lines = str(err).strip().splitlines()
    return lines[0][:200] if lines else type(err).__name__


def _resolve(ref: str, revision: str | None) -> tuple[Path, str | None]:
    """A checkpoint's folder, and its commit if it is from the hub."""
    folder = TINY_FOLDER if ref == TINY else Path(ref).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InvalidInputError(f"{ref}: is a folder; revision {revision!r} is for a hub id")
        return folder, None
    parts = ref.split("/")
    if len(parts) > 2 or ref.startswith((".", "~", "/")) or not all(parts):
        raise InvalidInputError(
            f"encoder {ref!r}: no such folder, and not a hub id like MCG-NJU/videomae-base"
        )
    snapshot = _download(ref, revision)
    return snapshot, snapshot.name


def _download(ref: str, revision: str | None) -> Path:
    """The folder of a hub checkpoint in the local cache, downloaded if it is not there."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    descriptions = ["config.json", _ADAPTER, *PROCESSOR_FILES]
    try:
        # Weights are large: a format is downloaded only if the preferred one does not exist.
        for kind in ([SAFETENSORS], [SAFETENSORS_INDEX, SHARDS], [PICKLED]):
            found = Path(
                snapshot_download(ref, revision=revision, allow_patterns=[*descriptions, *kind])
            )
            if (found / kind[0]).is_file():
                break
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as err:
        at = f" at revision {revision!r}" if revision else ""
        raise InvalidInputError(f"encoder {ref!r}: neither a folder nor on the hub{at}") from err
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as err:
        raise TransientError(
            f"encoder {ref!r}: no such folder, not in the local cache, and the hub does not "
            f"answer ({first_line(err)})"
        ) from err
    return found


def _config(folder: Path, ref: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise InvalidInputError(f"encoder {ref!r}: has no config.json, so it is not a checkpoint")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InvalidInputError(f"{path}: not a model configuration: {err}") from err
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path}: not a model configuration")
    return config
