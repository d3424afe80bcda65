"""What goes into the ledger and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Origin = Literal["download", "import", "in_place"]
"""How a file came: fetched, adopted from another folder, or used where it is."""

PENDING = "pending"
DOWNLOADED = "downloaded"

MEANING = {
    DOWNLOADED: "here, decoded to the end",
    PENDING: "not tried yet",
    "transient": "a passing failure; asked again later",
    "blocked": "the source refused; asked again later",
    "gone": "removed, closed or under copyright",
    "restricted": "private, age, members, region or login",
    "unsupported": "no usable format; asked again after a yt-dlp upgrade",
    "corrupt": "arrived, but does not decode",
    "local": "this machine was at fault",
}
"""What each state of a video means, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A verified file.

    Attributes:
        path: Where it is, absolute.
        size_bytes: Its size.
        sha256: Its content, in hex.
        mtime_ns: When it was last written, in nanoseconds since the epoch.
        media_duration_s: Its length in seconds, where known.
        origin: How it came.
        title: What the source calls the video, where it says.
    """

    path: str
    size_bytes: int
    sha256: str
    mtime_ns: int | None = None
    media_duration_s: float | None = None
    origin: Origin = "download"
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one video.

    Attributes:
        run_id: The run that made it; attempts of one run are counted together.
        started_at: When it began.
        seconds: How long it took.
        size_bytes: Bytes that arrived, where known.
        tool_version: yt-dlp's version.
        credentials: Digest of the cookies and the proxy in use, None without either.
    """

    run_id: str
    started_at: datetime
    seconds: float = 0.0
    size_bytes: int | None = None
    tool_version: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What is known of one video.

    Attributes:
        video_id: Its id in the dataset.
        label: The task class.
        subset: The official side.
        split: What coinml uses it for.
        duration_s: Length in seconds by the annotations.
        state: "pending", "downloaded", or the name of the fault of its last attempt.
        path: Where the file is, absolute; None when there is none.
        size_bytes: The file's size.
        mtime_ns: The file's modification time when it was verified.
        sha256: The file's content, in hex.
        media_duration_s: The file's length in seconds.
        origin: How the file came.
        attempts: How many attempts were made over all runs.
        next_attempt_at: When it is due again; None: time alone does not bring it back.
        message: The words of its last failure.
        tool_version: yt-dlp's version at the last attempt.
        credentials: Digest of the credentials at the last attempt.
        updated_at: When this row last changed its state.
        title: What the source calls the video, where it says.
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
    origin: str | None
    attempts: int
    next_attempt_at: datetime | None
    message: str | None
    tool_version: str | None
    credentials: str | None
    updated_at: datetime | None
    title: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRow:
    """One attempt as recorded; `outcome` is "downloaded" or the name of a fault.

    `rule` names what told the fault; "unknown" marks a message that no rule knew.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Videos of one side or class; `lost` are those that no later run will ask for by itself."""

    total: int = 0
    downloaded: int = 0
    pending: int = 0
    lost: int = 0
    due: int = 0

    @property
    def possible(self) -> int:
        """Not here, and not lost."""
        return self.total - self.downloaded - self.lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a dataset stands; `total` = `downloaded` + `pending` + the sum of `faults`.

    Attributes:
        dataset: Its name.
        total: Videos registered.
        downloaded: Files here, verified.
        pending: Never tried.
        faults: How many stand under which fault (those that occur).
        due: How many would be tried by a run that starts now.
        by_split: The official side -> counts.
        by_class: The task class -> counts.
        eta_hours: Hours until all that is still possible was asked for at the allowed rate;
            None when no rate is known.
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
        """Not here, and not lost."""
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
