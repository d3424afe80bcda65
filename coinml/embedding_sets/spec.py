"""Which embeddings a set holds, under a fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coinml.encoder.spec import EncoderSpec, fingerprint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpec:
    """Which embeddings a set holds.

    Attributes:
        encoder: What its vectors mean.
        dataset: Name of the dataset.
        extent: Which part of a video is embedded: "video" is the whole, "annotated" from the
            first to the last annotated second, "segments" each annotated step on its own.
        snap: Where clips may begin; see `media.ClipSpec`.
        decode: How broken frames are treated: "count" puts the nearest decoded frame in a
            missing one's place and counts it.
    """

    encoder: EncoderSpec
    dataset: str
    extent: str = "video"
    snap: str = "exact"
    decode: str = "count"

    @property
    def fingerprint(self) -> str:
        """12 hex digits that name the set's folder."""
        fields = {name: getattr(self, name) for name in ("dataset", "extent", "snap", "decode")}
        return fingerprint_of({**fields, "encoder": self.encoder.fingerprint})

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON has them, and the fingerprint."""
        fields = {name: getattr(self, name) for name in ("dataset", "extent", "snap", "decode")}
        return {**fields, "encoder": self.encoder.as_dict(), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SetSpec:
        """The inverse of `as_dict`."""
        names = ("dataset", "extent", "snap", "decode")
        return cls(
            encoder=EncoderSpec.from_dict(fields["encoder"]),
            **{name: fields[name] for name in names if name in fields},
        )
