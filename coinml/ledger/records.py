"""The records that the ledger takes and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Origin = Literal["download", "import", "in_place"]
"""How a file was obtained: downloaded, copied from another folder, or used where it is."""

PENDING = "pending"
DOWNLOADED = "downloaded"

MEANING = {
    DOWNLOADED: "verified by decoding to the end",
    PENDING: "not tried yet, or not at each source",
    "transient": "temporary failure; tried again later",
    "blocked": "the source refused; tried again later",
    "gone": "removed, closed or under copyright",
    "restricted": "private, age, members, region or login",
    "unsupported": "no usable format, live or too large; tried again after a yt-dlp upgrade",
    "corrupt": "the file is damaged, missing or of another length",
    "local": "a problem of this machine, not of the source",
}
"""What each state of a video means, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A verified file.

    Attributes:
        path: Absolute path.
        size_bytes: Size.
        sha256: SHA-256 of the content, in hex.
        mtime_ns: Modification time in nanoseconds since the epoch.
        media_duration_s: Length of the video in seconds, where known.
        short_side_px: Shorter side of its pictures in pixels, where known.
        origin: How the file was obtained.
        title: The video's title at the source, where known.
        source: Name of the source that it came from, where known.
        url: Its URL or path there, without credentials.
    """

    path: str
    size_bytes: int
    sha256: str
    mtime_ns: int | None = None
    media_duration_s: float | None = None
    short_side_px: int | None = None
    origin: Origin = "download"
    title: str | None = None
    source: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at one video.

    Attributes:
        run_id: The run that made it; `POLICY` limits the attempts of a run.
        started_at: Start time.
        seconds: Duration of the attempt.
        size_bytes: Bytes received, where known.
        tool_version: yt-dlp's version.
        credentials: Digest of the cookies and the proxy in use, None without either.
        source: Name of the source that was asked.
        url: The video's URL or path there, without credentials.
    """

    run_id: str
    started_at: datetime
    seconds: float = 0.0
    size_bytes: int | None = None
    tool_version: str | None = None
    credentials: str | None = None
    source: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """What several sources together say about a video that none of them brought.

    Attributes:
        state: "pending" while a source was not asked, else the most hopeful of their faults.
        message: What each of them said.
        next_attempt_at: The earliest time at which one of them may be asked again.
    """

    state: str
    message: str
    next_attempt_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """The ledger's row of one video.

    Attributes:
        video_id: Id in the dataset.
        label: The task class.
        subset: The published subset.
        split: The split that coinml uses.
        duration_s: Annotated length in seconds.
        state: "pending", "downloaded", or the fault of the last attempt.
        path: Absolute path of the file; None when there is none.
        size_bytes: Size of the file.
        mtime_ns: Modification time of the file when it was verified.
        sha256: SHA-256 of the file, in hex.
        media_duration_s: Length of the file in seconds.
        short_side_px: Shorter side of its pictures in pixels; None where not recorded.
        origin: How the file was obtained.
        attempts: Number of attempts over all runs.
        next_attempt_at: When the video is due again; None: no time is set, and only a change such
            as a newer yt-dlp makes it due.
        message: Message of the last failure.
        tool_version: yt-dlp's version at the last attempt.
        credentials: Digest of the credentials at the last attempt.
        updated_at: When the state was last recorded.
        title: The video's title at the source, where known.
        source: Name of the source that the file came from, where known.
        url: The video's URL or path there, without credentials.
    """

    video_id: str
    label: str
    subset: str
    split: str
    duration_s: float | None
    state: str
    path: str | None
    size_bytes: int | None
    mtime_ns: int | None
    sha256: str | None
    media_duration_s: float | None
    short_side_px: int | None
    origin: str | None
    attempts: int
    next_attempt_at: datetime | None
    message: str | None
    tool_version: str | None
    credentials: str | None
    updated_at: datetime | None
    title: str | None
    source: str | None
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """A recorded attempt; `outcome` is "downloaded" or the name of a fault.

    `rule` is the rule that classified the failure, "unknown" when none matched. `source` and `url`
    say which source was asked, None where the attempt was made before sources were recorded;
    `next_attempt_at` when that source may be asked for the video again.
    """

    video_id: str
    run_id: str
    started_at: datetime
    seconds: float
    outcome: str
    message: str | None
    rule: str | None
    size_bytes: int | None
    tool_version: str | None
    source: str | None
    url: str | None
    next_attempt_at: datetime | None
    credentials: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Numbers of videos of one split or class.

    Attributes:
        total: Registered videos.
        downloaded: Videos with a verified file.
        pending: Videos never tried.
        lost: Videos that no later run will try by itself.
        due: Videos that a run starting now would try.
    """

    total: int = 0
    downloaded: int = 0
    pending: int = 0
    lost: int = 0
    due: int = 0

    @property
    def possible(self) -> int:
        """Number of videos neither downloaded nor lost."""
        return self.total - self.downloaded - self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Counts of a dataset's videos; `total` = `downloaded` + `pending` + the sum of `faults`.

    Attributes:
        dataset: Name of the dataset.
        total: Registered videos.
        downloaded: Videos with a verified file.
        pending: Videos never tried.
        faults: Videos by fault, for the faults that occur.
        due: Videos that a run starting now would try.
        by_split: Counts by published subset.
        by_class: Counts by task class.
        eta_hours: Hours to try every video that is still possible once at the allowed rate; None
            when no rate is known.
    """

    dataset: str
    total: int
    downloaded: int
    pending: int
    faults: Mapping[str, int]
    due: int
    by_split: Mapping[str, Counts]
    by_class: Mapping[str, Counts]
    eta_hours: float | None

    @property
    def possible(self) -> int:
        """Number of videos neither downloaded nor lost."""
        return sum(counts.possible for counts in self.by_split.values())

    def states(self) -> list[tuple[str, int, str]]:
        """The states that occur: name, number of videos, meaning; `downloaded` in any case."""
        counts = {DOWNLOADED: self.downloaded, PENDING: self.pending, **self.faults}
        return [
            (state, count, MEANING[state])
            for state, count in counts.items()
            if count or state == DOWNLOADED
        ]

    def as_dict(self) -> dict[str, Any]:
        """The form of `coinml status --json`."""
        from dataclasses import asdict

        return asdict(self)
