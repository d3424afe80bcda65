"""Which embedding set: the part of the parameters that embedding, training and studies share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from coinml.data.records import Extent, Target

if TYPE_CHECKING:
    from coinml.embedding_sets.spec import SetSpec
    from coinml.encoder.checkpoint import Checkpoint
    from coinml.encoder.sampling import Sampling

VIDEOMAE = "MCG-NJU/videomae-base"
TINY = "tiny"


class SetOptions(BaseModel):
    """How videos become vectors: what names an embedding set."""

    # A model and not plain parameters, so that forms and help texts are made from these fields.
    # They are what a person says; `spec` makes a set's spec of it.
    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str | None = Field(
        default=None,
        description="Hub id, folder, or `tiny` for the one in the package; by default "
        "VideoMAE-base, and for `mini` the tiny one.",
    )
    revision: str | None = Field(default=None, description="Revision of the hub id.")
    clips: int = Field(default=8, ge=1, description="Clips a video.")
    stride: int = Field(default=4, ge=1, description="Frames between a clip's frames.")
    snap: Literal["exact", "keyframe"] = Field(
        default="exact",
        description="Where clips may begin: `exact` places, or the `keyframe` nearest to each.",
    )
    keep_tokens: float = Field(
        default=1.0, gt=0, le=1, description="Part of the tokens that the encoder sees."
    )
    keep_seed: int = Field(default=0, description="Seed of the choice of tokens.")
    extent: Extent | None = Field(
        default=None,
        description="What is embedded: the whole `video`, its `annotated` extent, or its annotated "
        "`segments` one by one; by default the video, and for steps the segments.",
    )

    def for_target(self, target: Target) -> SetOptions:
        """The same with the extent named that a target is learnt on.

        Raises:
            InvalidInputError: An unknown target, or one that is not learnt on this extent.
        """
        from coinml.data.targets import extent_of

        return self.model_copy(update={"extent": extent_of(target, self.extent)})

    def resolved(self, *, mini: bool) -> SetOptions:
        """The same with nothing left open, and `tiny`'s folder for its name.

        Args:
            mini: Whether it is for the dataset that is drawn here.
        """
        from coinml.miniature.tiny_encoder import ENCODER

        encoder = self.encoder or (TINY if mini else VIDEOMAE)
        place = str(ENCODER) if encoder == TINY else encoder
        return self.model_copy(update={"encoder": place, "extent": self.extent or "video"})

    def checkpoint(self) -> Checkpoint:
        """The encoder's files.

        Raises:
            InvalidInputError: No such checkpoint, or the encoder was not `resolved`.
            TransientError: The hub does not answer.
        """
        from coinml.encoder.checkpoint import find_checkpoint
        from coinml.errors import InvalidInputError

        if self.encoder is None:
            raise InvalidInputError("no encoder is named")
        return find_checkpoint(self.encoder, revision=self.revision)

    def spec(self, dataset: str) -> SetSpec:
        """The spec of a dataset's set that is made so.

        Raises:
            InvalidInputError: As `checkpoint`; or an encoder that cannot do with fewer tokens.
            TransientError: The hub does not answer.
        """
        from coinml.embedding_sets.spec import SetSpec

        return SetSpec(
            encoder=self.checkpoint().spec(self.sampling),
            dataset=dataset,
            extent=self.extent or "video",
            snap=self.snap,
        )

    @property
    def sampling(self) -> Sampling:
        """How videos become the encoder's input."""
        from coinml.encoder.sampling import Sampling

        return Sampling(
            clips=self.clips,
            stride=self.stride,
            keep_tokens=self.keep_tokens,
            keep_seed=self.keep_seed,
        )


USUAL = SetOptions()
"""What is meant where nothing is said."""
