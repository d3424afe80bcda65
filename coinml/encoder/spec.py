"""The specification of an encoder and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coinml.encoder.sampling import FLOAT, Sampling


def fingerprint_of(fields: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of a canonical JSON."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Everything that determines an encoder's vectors.

    The weights are identified by a hash and not by their source, so that the copy in a registered
    model is the same encoder.

    Attributes:
        encoder: Hub id, or the name of the local folder; for display, not in the fingerprint.
        revision: The hub's commit; None for a folder; not in the fingerprint.
        architecture: The checkpoint's model type ("videomae"), with other fields of its
            configuration that may change its vectors and are not as usual, as in
            'videomae(hidden_act="relu")'; see `model_config.unusual_fields`.
        weights_sha256: Hash of the weights file.
        resize: Shortest edge in pixels, or (height, width).
        crop: (height, width) in pixels.
        interpolation: "bilinear" or "bicubic".
        mean: Mean of each channel, for values from 0 to 1; includes other offsets of the
            processor, such as ViViT's.
        std: Standard deviation of each channel, likewise.
        frames: Number of frames per clip.
        stride: Distance between a clip's frames, in frames.
        clips: Number of clips per video.
        short: How a clip that is longer than the video is filled.
        keep_tokens: Share of the tokens that the encoder sees.
        keep_seed: Seed of the selection of tokens.
        pooling: How the tokens are pooled into one vector: "mean", "mean+fc_norm" (through the
            classification checkpoint's norm), "layernorm+mean" or "layernorm+cls" (the first
            token, as for the family's classifiers).
        dim: Length of a vector.
        precision: "float", or "int8" for a quantized model. The default is left out of the
            fingerprint and of the JSON, as it was before there was another.
        calibration_sha256: Hash of the pixels that the scales of a quantized model were found from.
            None for "float", where no quantized model is known yet, and for those of an earlier
            version; it is left out then.
    """

    encoder: str = field(compare=False)
    revision: str | None = field(default=None, compare=False)
    architecture: str
    weights_sha256: str
    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    frames: int = 16
    stride: int = 4
    clips: int = 8
    short: str = "repeat_last"
    keep_tokens: float = 1.0
    keep_seed: int = 0
    pooling: str = "mean"
    dim: int
    precision: str = FLOAT
    calibration_sha256: str | None = None

    @property
    def sampling(self) -> Sampling:
        """The sampling, which a user chooses; the other fields are the checkpoint's."""
        return Sampling(
            clips=self.clips,
            frames=self.frames,
            stride=self.stride,
            keep_tokens=self.keep_tokens,
            keep_seed=self.keep_seed,
            precision=self.precision,
        )

    @property
    def fingerprint(self) -> str:
        """12 hex digits, equal exactly if vectors are comparable."""
        fields = self._fields()
        del fields["encoder"], fields["revision"]
        return fingerprint_of(fields)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values, with the fingerprint."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._fields().items()
        }
        return {**fields, "fingerprint": self.fingerprint}

    def _fields(self) -> dict[str, Any]:
        fields = asdict(self)
        if self.precision == FLOAT:
            del fields["precision"]
        if self.calibration_sha256 is None:
            del fields["calibration_sha256"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> EncoderSpec:
        """The inverse of `as_dict`."""
        known = {name: _tupled(fields[name]) for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
