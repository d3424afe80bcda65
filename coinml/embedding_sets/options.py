"""How videos become vectors."""

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
    """How videos become vectors; together with the dataset, it identifies an embedding set."""

    # What a user chooses; `spec` makes a set's spec of it.
    model_config = ConfigDict(frozen=True, extra="forbid", title="Embedding set")

    encoder: str | None = Field(
        default=None,
        description="Hub id or folder of a VideoMAE, or `tiny` for the one in the package; by "
        "default VideoMAE-base, and for `mini` the tiny one.",
    )
    revision: str | None = Field(default=None, description="Revision of the hub id.")
    clips: int = Field(default=8, ge=1, description="Clips per video.")
    stride: int = Field(
        default=4,
        ge=1,
        description="Distance between consecutive frames of a clip, in video frames.",
    )
    snap: Literal["exact", "keyframe"] = Field(
        default="exact",
        description="Where clips begin: at `exact` times, or at the `keyframe` nearest to each.",
    )
    keep_tokens: float = Field(
        default=1.0, gt=0, le=1, description="Share of the tokens that the encoder sees, up to 1."
    )
    keep_seed: int = Field(default=0, description="Seed of the selection of tokens.")
    precision: Literal["float", "int8"] = Field(
        default="float",
        description="`float`, or `int8`: the encoder is quantized on training videos of the set, "
        "computes faster on most CPUs and gives other vectors (`coinml study precision`).",
    )
    extent: Extent | None = Field(
        default=None,
        description="What is embedded: the whole `video`, its `annotated` extent, or each of its "
        "annotated `segments`; by default the video, and for the target `step` the segments.",
    )

    def for_target(self, target: Target) -> SetOptions:
        """The same with the extent that a target is trained on.

        Raises:
            InvalidInputError: An unknown target, or one that is not trained on this extent.
        """
        from coinml.data.targets import extent_of

        return self.model_copy(update={"extent": extent_of(target, self.extent)})

    def resolved(self, *, mini: bool) -> SetOptions:
        """The same with encoder and extent filled in, and `tiny` replaced by its folder.

        Args:
            mini: Whether it is for the miniature dataset.
        """
        from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT

        encoder = self.encoder or (TINY if mini else VIDEOMAE)
        place = str(TINY_CHECKPOINT) if encoder == TINY else encoder
        return self.model_copy(update={"encoder": place, "extent": self.extent or "video"})

    def checkpoint(self) -> Checkpoint:
        """The encoder's files.

        Raises:
            InvalidInputError: No such checkpoint, or no encoder is named: call `resolved` first.
            TransientError: The hub does not answer.
        """
        from coinml.encoder.checkpoint import find_checkpoint
        from coinml.errors import InvalidInputError

        if self.encoder is None:
            raise InvalidInputError("no encoder is named")
        return find_checkpoint(self.encoder, revision=self.revision)

    def spec(self, dataset: str) -> SetSpec:
        """The spec of a dataset's embedding set with these options.

        With precision int8 it lacks the set's calibration: `quantized_file.find_spec` has it.

        Raises:
            InvalidInputError: As `checkpoint`; or the encoder does not work with fewer tokens.
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
            precision=self.precision,
        )
