"""The ledger: one durable row per video, one row per attempt."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import Connection, select, update

from coinml.data.records import Dataset
from coinml.errors import InvalidInputError
from coinml.faults.classification import POLICY, Fault
from coinml.ledger.database import Database
from coinml.ledger.foreign_values import text
from coinml.ledger.leases import is_held
from coinml.ledger.queries import LedgerReader
from coinml.ledger.records import DOWNLOADED, PENDING, Attempt, FileFacts, Overall
from coinml.ledger.registration import register_rows
from coinml.ledger.schema import attempts, chunks, seconds, videos

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings

_FILE_COLUMNS = (
    "path",
    "size_bytes",
    "mtime_ns",
    "sha256",
    "media_duration_s",
    "short_side_px",
    "origin",
    "source",
    "url",
)
_NO_FILE: dict[str, Any] = dict.fromkeys(_FILE_COLUMNS)


class Ledger(LedgerReader):
    """The state of each video; safe for many threads, processes and (PostgreSQL) hosts.

    The first use opens the database and creates or migrates the tables.

    Args:
        url: SQLAlchemy URL, "sqlite:////path/ledger.db" or "postgresql+psycopg://...".
        videos: The folder that has a folder of collected files for each dataset. Rows of which the
            file is elsewhere are read without a path, unless it is the user's own ("in_place").
            None: every path is taken, as for a ledger that nobody else writes to.
    """

    def __init__(self, url: str, *, videos: Path | None = None) -> None:
        self.url = url
        self.videos = videos
        self.database = Database(url)

    @classmethod
    def of(cls, settings: Settings) -> Ledger:
        """The ledger that the settings name, with their videos' folder."""
        return cls(settings.ledger_url, videos=settings.data_dir / "videos")

    @classmethod
    def shared(cls, url: str) -> Ledger:
        """The one ledger of this process for a URL, which stays open between uses."""
        with _sharing:
            key = (os.getpid(), url)
            ledger = _shared.setdefault(key, cls(url))
            path = ledger.database.path
            if path is not None and not path.exists():
                # The file was removed: open connections would write to the deleted inode.
                ledger.close()
            return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the ledger may be used again afterwards."""
        self.database.close()

    # -- videos

    def register(self, dataset: Dataset) -> int:
        """Add a row for every new video and update changed annotations; states do not change.

        Returns:
            The number of new rows.

        Raises:
            InvalidInputError: The ledger knows another dataset by this name (`origins`).
        """
        self.require_same(dataset)
        return self.database.write(lambda connection: register_rows(connection, dataset))

    def move(self, dataset: Dataset) -> int:
        """Make a dataset's present folder or annotation file its place, whatever was there before.

        Its files in another place are forgotten: they are verified again where they are now.

        Returns:
            The number of rows that the ledger had and the dataset still has.
        """
        paths = {video.video_id: video.path for video in dataset.videos}
        kept = [row for row in self.rows(dataset.name) if row.video_id in paths]
        self.database.write(lambda connection: register_rows(connection, dataset))
        for row in kept:
            if row.origin == "in_place" and row.path != paths[row.video_id]:
                self.forget(dataset.name, row.video_id, "the dataset has moved")
        return len(kept)

    # -- leases

    def claim(
        self,
        dataset: str,
        ids: Sequence[str],
        *,
        owner: str,
        lease_s: float = 600.0,
        now: datetime | None = None,
    ) -> list[str]:
        """Lease videos to an owner, so that no other collector works on them.

        Args:
            dataset: Name of the dataset.
            ids: The videos wanted.
            owner: From `coinml.ledger.new_owner`; the lease of a dead process is void.
            lease_s: Length of the lease in seconds, an hour at most; `extend` renews it.
            now: Default: the current time.

        Returns:
            Those of `ids` that are leased now, in the same order, without downloaded ones.
        """
        moment = seconds(now)

        def work(connection: Connection) -> list[str]:
            free: set[str] = set()
            known: dict[tuple[str, Any], bool] = {}
            for chunk in chunks(sorted(set(ids))):
                rows = connection.execute(
                    select(videos.c.video_id, videos.c.lease_owner, videos.c.lease_until)
                    .where(
                        videos.c.dataset == dataset,
                        videos.c.video_id.in_(chunk),
                        # Downloaded by another collector meanwhile: nothing to lease.
                        videos.c.state != DOWNLOADED,
                    )
                    .order_by(videos.c.video_id)
                    .with_for_update()
                )
                taken = []
                for video_id, holder, until in rows:
                    if holder is not None and holder != owner:
                        lease = (text(holder), until)
                        if lease not in known:
                            known[lease] = is_held(*lease, now=moment)
                        if known[lease]:
                            continue
                    taken.append(video_id)
                connection.execute(
                    update(videos)
                    .where(videos.c.dataset == dataset, videos.c.video_id.in_(taken))
                    .values(lease_owner=owner, lease_until=moment + lease_s)
                )
                free.update(taken)
            return [video_id for video_id in dict.fromkeys(ids) if video_id in free]

        return self.database.write(work) if ids else []

    def extend(self, dataset: str, *, owner: str, lease_s: float = 600.0) -> None:
        """Make all leases of an owner end `lease_s` seconds from now."""
        self._execute(_held(dataset, owner).values(lease_until=time.time() + lease_s))

    def release(self, dataset: str, *, owner: str) -> None:
        """End all leases of an owner."""
        self._execute(_held(dataset, owner).values(lease_owner=None, lease_until=None))

    # -- outcomes

    def note_source(self, dataset: str, video_id: str, *, source: str, url: str) -> None:
        """Record where a file comes from, before it is complete.

        If the process is killed before the outcome is recorded, a later run recognises the file
        on disk and takes its source from here.
        """
        self._execute(_of(dataset, video_id).values(source=source, url=url))

    def record_success(
        self, dataset: str, video_id: str, *, file: FileFacts, attempt: Attempt | None
    ) -> None:
        """Record a verified file; `attempt` is None when nothing was fetched."""
        values = {
            "state": DOWNLOADED,
            "message": None,
            "next_attempt_at": None,
            "path": file.path,
            "size_bytes": file.size_bytes,
            "mtime_ns": file.mtime_ns,
            "sha256": file.sha256,
            "media_duration_s": file.media_duration_s,
            "short_side_px": file.short_side_px,
            "origin": file.origin,
            "source": file.source,
            "url": file.url,
        }
        if file.title is not None:
            values["title"] = file.title
        self._record(dataset, video_id, values, attempt, DOWNLOADED)

    def record_fault(
        self,
        dataset: str,
        video_id: str,
        *,
        fault: Fault,
        message: str,
        next_attempt_at: datetime | None,
        attempt: Attempt | None,
        rule: str | None = None,
        path: str | None = None,
        overall: Overall | None = None,
        keep_lease: bool = False,
    ) -> None:
        """Record why a video is not downloaded, and when to try again.

        Args:
            dataset: Name of the dataset.
            video_id: The video.
            fault: The fault.
            message: The failure's message.
            next_attempt_at: When the video is due again; None: no time is set, and only a change
                such as a newer yt-dlp makes it due.
            attempt: None when nothing was requested from the source (e.g. a broken file on disk).
            rule: The rule that classified the failure; "unknown" when none matched.
            path: Where a bad file was moved.
            overall: What the video's row says, where it has several sources; the arguments above
                are those of one source, and belong to the attempt.
            keep_lease: Other sources are to be asked for the video: its lease goes on.
        """
        row = overall or Overall(state=str(fault), message=message, next_attempt_at=next_attempt_at)
        values = {
            **_NO_FILE,
            "state": row.state,
            "message": row.message,
            "next_attempt_at": _timestamp(row.next_attempt_at),
            "path": path,
        }
        outcome = {
            "message": message,
            "rule": rule,
            "next_attempt_at": _timestamp(next_attempt_at),
        }
        self._record(dataset, video_id, values, attempt, str(fault), outcome, keep_lease=keep_lease)

    def reopen(self, dataset: str, ids: Sequence[str]) -> None:
        """Make videos that failed pending again, since a source was never asked for them."""

        def work(connection: Connection) -> None:
            for chunk in chunks(sorted(set(ids))):
                connection.execute(
                    update(videos)
                    .where(
                        videos.c.dataset == dataset,
                        videos.c.video_id.in_(chunk),
                        videos.c.state != DOWNLOADED,
                    )
                    .values(state=PENDING, next_attempt_at=None)
                )

        if ids:
            self.database.write(work)

    def forget(self, dataset: str, video_id: str, reason: str) -> None:
        """Make a video pending again, since its file is gone or was altered."""
        values = {**_NO_FILE, "state": PENDING, "message": reason, "next_attempt_at": None}
        self._record(dataset, video_id, values, None, PENDING)

    def quarantine(self, dataset: str, video_id: str, reason: str) -> None:
        """Record that the file of a downloaded video does not decode, and move it aside.

        A file from the source is fetched once more before the video counts as permanently corrupt.
        The user's own files (`origin` "in_place") stay where they are.
        """
        row = self.row(dataset, video_id)
        failures = self.failures(dataset, video_id, Fault.CORRUPT) + 1
        aside: Path | None = None
        if row.path is not None and row.origin != "in_place":
            aside = Path(row.path).parent / ".quarantine" / Path(row.path).name
        again = row.origin == "download" and failures < (POLICY[Fault.CORRUPT].attempts_in_all or 0)
        now = datetime.now(UTC)
        # Record before moving: a crash in between leaves an unused file, not a row that points
        # to a missing one.
        self.record_fault(
            dataset,
            video_id,
            fault=Fault.CORRUPT,
            message=reason,
            next_attempt_at=now if again else None,
            attempt=Attempt(run_id="quarantine", started_at=now, source=row.source, url=row.url),
            rule="decode",
            path=str(aside) if aside is not None else row.path,
        )
        if aside is not None and row.path is not None and Path(row.path).exists():
            aside.parent.mkdir(exist_ok=True)
            Path(row.path).replace(aside)

    def _record(
        self,
        dataset: str,
        video_id: str,
        values: Mapping[str, Any],
        attempt: Attempt | None,
        outcome: str,
        failure: Mapping[str, Any] | None = None,
        *,
        keep_lease: bool = False,
    ) -> None:
        counted = (
            {}
            if attempt is None
            else {
                "attempts": videos.c.attempts + 1,
                "tool_version": attempt.tool_version,
                "credentials": attempt.credentials,
            }
        )
        lease: dict[str, Any] = {} if keep_lease else {"lease_owner": None, "lease_until": None}
        statement = _of(dataset, video_id).values(
            **values, **counted, updated_at=time.time(), **lease
        )

        def work(connection: Connection) -> None:
            if connection.execute(statement).rowcount != 1:
                raise InvalidInputError(
                    f"the ledger has no video {video_id!r} in dataset {dataset!r}"
                )
            if attempt is not None:
                connection.execute(
                    attempts.insert(),
                    {
                        "dataset": dataset,
                        "video_id": video_id,
                        "run_id": attempt.run_id,
                        "started_at": attempt.started_at.timestamp(),
                        "seconds": attempt.seconds,
                        "outcome": outcome,
                        "size_bytes": attempt.size_bytes,
                        "tool_version": attempt.tool_version,
                        "source": attempt.source,
                        "url": attempt.url,
                        "credentials": attempt.credentials,
                        **(failure or {}),
                    },
                )

        self.database.write(work)

    def _execute(self, statement: Any) -> None:
        self.database.write(lambda connection: connection.execute(statement).close())


_shared: dict[tuple[int, str], Ledger] = {}
_sharing = threading.Lock()


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _of(dataset: str, video_id: str) -> Any:
    return update(videos).where(videos.c.dataset == dataset, videos.c.video_id == video_id)


def _held(dataset: str, owner: str) -> Any:
    return update(videos).where(videos.c.dataset == dataset, videos.c.lease_owner == owner)
