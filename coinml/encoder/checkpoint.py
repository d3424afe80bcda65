"""A checkpoint on disk or on the hub: where its files are and what they say, without loading it.

Neither torch nor transformers is needed to know whether a set was made with an encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coinml.encoder.architectures import Architecture, architecture_of
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.processor_files import PROCESSOR_FILES, read_processor
from coinml.encoder.sampling import DEFAULT, Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.encoder.token_masking import checked_share
from coinml.encoder.weights import (
    PICKLED,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    SHARDS,
    Weights,
    find_weights,
)
from coinml.errors import InvalidInputError, TransientError


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint's files; see `find_checkpoint`.

    Attributes:
        ref: How it was asked for.
        folder: Where its files are.
        commit: The hub's commit, None for a local folder.
        architecture: The family that it belongs to.
        config: Its `config.json`, with the family's defaults for what it leaves out.
        weights: Its weights, one file or several.
    """

    ref: str
    folder: Path
    commit: str | None
    architecture: Architecture
    config: Mapping[str, Any]
    weights: Weights

    @property
    def files(self) -> list[Path]:
        """All that is needed to load it elsewhere."""
        names = ("config.json", *PROCESSOR_FILES)
        return [
            *self.weights.files,
            *(self.folder / n for n in names if (self.folder / n).is_file()),
        ]

    def spec(self, sampling: Sampling = DEFAULT) -> EncoderSpec:
        """What its vectors mean with this sampling.

        Raises:
            InvalidInputError: It takes clips of another number of frames, or the part of the
                tokens to keep is none.
        """
        keep_tokens, keep_seed = checked_share(sampling.keep_tokens, sampling.keep_seed)
        if keep_tokens != 1 and not self.architecture.hides_tokens:
            raise InvalidInputError(
                f"{self.ref}: keep_tokens is {keep_tokens:g}, but a {self.model_type} must be fed "
                "all its tokens: leave it at 1"
            )
        try:
            own = self.architecture.frames(self.config, sampling.frames)
            size = self.architecture.size(self.config)
        except InvalidInputError as err:
            raise InvalidInputError(f"{self.ref}: {err}") from err
        preprocessor = self._preprocessor(size)
        return EncoderSpec(
            encoder=self.ref if self.commit else self.folder.resolve().name,
            revision=self.commit,
            architecture=self.model_type,
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
            pooling=self.architecture.pooling(self.config, self.weights.tensor_names()),
            dim=self.config["hidden_size"],
        )

    @property
    def model_type(self) -> str:
        """The name of its family in transformers."""
        return str(self.config["model_type"])

    def _preprocessor(self, size: tuple[int, int]) -> Preprocessor:
        found = read_processor(self.folder, family=self.model_type, image_size=size)
        if found is None:
            if not self.architecture.bare:
                raise InvalidInputError(
                    f"{self.ref}: holds none of {', '.join(PROCESSOR_FILES)}, which say how frames "
                    f"are brought to a {self.model_type}"
                )
            # What VideoMAE was trained with; a default-constructed processor would take 0.5.
            return Preprocessor(resize=min(size), crop=size)
        if found.crop != size and not self.architecture.any_size:
            raise InvalidInputError(
                f"{self.ref}: the processor's crop_size is {found.crop}, but the model takes "
                f"frames of {size} (height, width)"
            )
        return found


def find_checkpoint(ref: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Find a video encoder's checkpoint in a folder, in the hub's local cache or on the hub.

    Args:
        ref: Hub id ("MCG-NJU/videomae-base") or a folder written by `save_pretrained`.
        revision: Branch, tag or commit on the hub.

    Raises:
        InvalidInputError: No such checkpoint, or one that is of a family that is not known.
        TransientError: The hub does not answer.
    """
    folder, commit = _resolve(str(ref), revision)
    config = _config(folder, str(ref))
    architecture = architecture_of(config, ref=str(ref))
    return Checkpoint(
        ref=str(ref),
        folder=folder,
        commit=commit,
        architecture=architecture,
        config={**architecture.defaults, **config},
        weights=find_weights(folder, ref=str(ref)),
    )


def first_line(err: BaseException) -> str:
    """A library's error in one short line."""
    lines = str(err).strip().splitlines()
    return lines[0][:200] if lines else type(err).__name__


def _resolve(ref: str, revision: str | None) -> tuple[Path, str | None]:
    """A checkpoint's folder, and its commit if it came from the hub."""
    folder = Path(ref).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise InvalidInputError(f"{ref}: is a folder, which has no revision {revision!r}")
        return folder, None
    parts = ref.split("/")
    if len(parts) > 2 or ref.startswith((".", "~", "/")) or not all(parts):
        raise InvalidInputError(
            f"encoder {ref!r}: no such folder, and not a hub id like MCG-NJU/videomae-base"
        )
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

    described = ["config.json", *PROCESSOR_FILES]
    try:
        # Each kind of weights only where there is none of the one before: they are large.
        for kind in ([SAFETENSORS], [SAFETENSORS_INDEX, SHARDS], [PICKLED]):
            found = Path(
                snapshot_download(ref, revision=revision, allow_patterns=[*described, *kind])
            )
            if (found / kind[0]).is_file():
                break
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as err:
        at = f" at revision {revision!r}" if revision else ""
        raise InvalidInputError(f"encoder {ref!r}: neither a folder nor on the hub{at}") from err
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as err:
        raise TransientError(
            f"encoder {ref!r}: no folder here, not in the local cache, and the hub does not "
            f"answer ({first_line(err)})"
        ) from err
    return found, found.name


def _config(folder: Path, ref: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise InvalidInputError(f"encoder {ref!r}: holds no config.json, so it is no checkpoint")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise InvalidInputError(f"{path}: not the configuration of a model: {err}") from err
    if not isinstance(config, dict):
        raise InvalidInputError(f"{path}: not the configuration of a model")
    return config
