"""What the media functions take and give back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Snap = Literal["exact", "keyframe"]
"""Where a clip may begin: at its `exact` place, or at the nearest `keyframe`."""

ShortPolicy = Literal["repeat_last", "wrap", "error"]
"""What fills a clip that is longer than the video: its last frame, the video from its start
again, or nothing (the video is refused)."""

DecoderName = Literal["auto", "pyav", "decord", "torchcodec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What a file's header says about its video, without decoding a frame.

    Attributes:
        duration_s: Length in seconds, None where the header does not say.
        width: Columns as shown, that is after rotation.
        height: Rows as shown.
        fps: Average frames a second, None where the header does not say.
        frames_claimed: Number of frames the header claims, None where it claims none.
        codec: Name of the codec ("h264").
        rotation: Degrees that the picture is to be turned clockwise for display: 0, 90, 180, 270.
    """

    duration_s: float | None
    width: int
    height: int
    fps: float | None
    frames_claimed: int | None
    codec: str
    rotation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a full decode.

    Attributes:
        file: The path as it was given.
        verdict: `unusable` where no frame decodes, `damaged` where frames are lost or decoding
            meets an error, `ok` otherwise.
        frames_claimed: Number of frames the header claims, None where it claims none.
        frames_decoded: Number of frames that decoded.
        reason: Why it is not `ok`, for people; for an `ok` file that shows fewer frames than its
            header claims, why it does; None otherwise.
        duration_s: Length of the video as decoded (last frame's time less the first's, plus
            one frame) in seconds, None where nothing decodes.
    """

    file: str
    verdict: Literal["ok", "damaged", "unusable"]
    frames_claimed: int | None
    frames_decoded: int
    reason: str | None
    duration_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The fields that `coinml check --json` prints."""
        fields = asdict(self)
        del fields["duration_s"]
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSpec:
    """How clips are laid over a video.

    The extent is cut into `clips` equal parts and a clip of `frames` frames lies in the middle
    of each; where the clips are longer than the parts they overlap.

    With `exact` a clip consists of the frames nearest to the wanted times.

    With `keyframe`, which decodes a fraction of the frames, a clip begins at the key frame
    nearest to its place, each at another one (the sum of the shifts is the least possible) and
    early enough for the whole clip to follow within the extent. Where there are fewer such
    key frames than clips, the clips left over begin at the reference frames nearest to their
    places. A clip's other frames are the reference frames nearest to the wanted times; where
    there is none within half a stride, the nearest frame of any kind. What refers to what is
    known of H.264 and HEVC; of other codecs all frames count as reference frames, as do those
    of a file that does not say when its frames are shown. A video that is shorter than a clip
    has its clips where `exact` lays them.

    Attributes:
        clips: Number of clips a video.
        frames: Number of frames a clip.
        stride: Distance between a clip's frames, in frames at the video's average rate.
        snap: Where a clip may begin.
        short: What fills a clip that is longer than the video.
    """

    clips: int = 8
    frames: int = 16
    stride: int = 4
    snap: Snap = "exact"
    short: ShortPolicy = "repeat_last"

    def __post_init__(self) -> None:
        for name in ("clips", "frames", "stride"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.snap not in get_args(Snap):
            raise InvalidInputError(f"snap {self.snap!r} is unknown; known: {get_args(Snap)}")
        if self.short not in get_args(ShortPolicy):
            raise InvalidInputError(
                f"short-video policy {self.short!r} is unknown; known: {get_args(ShortPolicy)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledClips:
    """The clips of one video.

    Attributes:
        frames: uint8 (clips, frames, height, width, 3), RGB, turned upright.
        timestamps_s: float64 (clips, frames): presentation time of each frame as the file
            states it, in seconds.
        decoder: Which decoder gave the pixels: `decord`, `pyav` or `torchcodec`.
        frames_decoded: Number of different frames that were read from the file.
        frames_substituted: Number of entries of `frames` whose own frame did not decode and
            whose nearest decoded neighbour stands in. Repeats asked for by the short-video
            policy are not substitutions.
    """

    frames: NDArray[np.uint8]
    timestamps_s: NDArray[np.float64]
    decoder: str
    frames_decoded: int
    frames_substituted: int

    def without_frames(self) -> SampledClips:
        """The same without the pixels, so that their memory can go."""
        return replace(self, frames=self.frames[:0].copy())

    def __repr__(self) -> str:
        return (
            f"SampledClips(frames={self.frames.shape}, decoder={self.decoder!r}, "
            f"frames_decoded={self.frames_decoded}, frames_substituted={self.frames_substituted})"
        )
