"""What an embedding means, under a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coinml.encoder.sampling import Sampling


def fingerprint_of(fields: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the sha256 of a canonical JSON."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Everything that decides what a vector means.

    The weights are named by the hash of their file and not by where they came from, so that a
    copy that a registered model carries is the encoder it was copied from.

    Attributes:
        encoder: Hub id, or the name of the local folder; for people, not in the fingerprint.
        revision: The hub's commit, None for a folder; not in the fingerprint.
        architecture: The checkpoint's model type ("videomae").
        weights_sha256: Hash of the weights file.
        resize: Shortest edge in pixels, or (height, width).
        crop: (height, width) in pixels.
        interpolation: "bilinear" or "bicubic".
        mean: Of each channel, of values from 0 to 1; holds also what else the processor takes
            off, as ViViT's does.
        std: Of each channel.
        frames: Number of frames a clip.
        stride: Distance between a clip's frames, in frames.
        clips: Number of clips a video.
        short: What fills a clip that is longer than the video.
        keep_tokens: Part of the tokens that the encoder sees.
        keep_seed: Seed of the choice of tokens.
        pooling: How the tokens become one vector: "mean", "mean+fc_norm" (through the
            classification checkpoint's own norm), "layernorm+mean" or "layernorm+cls" (the
            first token, as the family's classifiers read it).
        dim: Length of a vector.
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

    @property
    def sampling(self) -> Sampling:
        """The part of it that is chosen and not the checkpoint's."""
        return Sampling(
            clips=self.clips,
            frames=self.frames,
            stride=self.stride,
            keep_tokens=self.keep_tokens,
            keep_seed=self.keep_seed,
        )

    @property
    def fingerprint(self) -> str:
        """12 hex digits; equal exactly where vectors may be compared."""
        fields = asdict(self)
        del fields["encoder"], fields["revision"]
        return fingerprint_of(fields)

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON has them, and the fingerprint."""
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {**fields, "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> EncoderSpec:
        """The inverse of `as_dict`."""
        known = {name: _tupled(fields[name]) for name in cls.__dataclass_fields__ if name in fields}
        return cls(**known)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
