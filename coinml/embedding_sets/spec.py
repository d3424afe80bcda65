"""What the embeddings of a set are, with a fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coinml.encoder.spec import EncoderSpec, fingerprint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpec:
    """Everything that determines the embeddings of a set.

    Attributes:
        encoder: The encoder and its sampling.
        dataset: Name of the dataset.
        extent: Which part of a video is embedded: "video" is all of it, "annotated" from the
            first to the last annotated second, "segments" each annotated step separately.
        snap: Where clips may begin; see `media.ClipSpec`.
        decode: Treatment of frames. "count": a missing frame is replaced by the nearest decoded
            one and counted; pictures are turned and mirrored upright, and otherwise as stored:
            not stretched by their pixel aspect ratio, HDR not tone-mapped.
    """

    encoder: EncoderSpec
    dataset: str
    extent: str = "video"
    snap: str = "exact"
    decode: str = "count"

    @property
    def fingerprint(self) -> str:
        """12 hex digits; also the name of the set's folder."""
        fields = {name: getattr(self, name) for name in ("dataset", "extent", "snap", "decode")}
        return fingerprint_of({**fields, "encoder": self.encoder.fingerprint})

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values, and the fingerprint."""
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
