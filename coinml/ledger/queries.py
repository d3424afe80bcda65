"""Reading from the ledger: due videos, rows, attempts, status."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select
from sqlalchemy.sql import Select

from coinml.data.records import Dataset
from coinml.errors import InvalidInputError
from coinml.faults.classification import POLICY, Fault, longest_wait_s
from coinml.ledger.database import Database
from coinml.ledger.foreign_values import (
    STATES,
    VideosFolder,
    attempt_row,
    finite,
    ledger_row,
    text,
)
from coinml.ledger.origins import origin_of, require_same
from coinml.ledger.records import DOWNLOADED, PENDING, AttemptRow, LedgerRow, Status
from coinml.ledger.schema import CHUNK, CLOCK_SLACK_S, attempts, chunks, datasets, seconds, videos
from coinml.ledger.status import summarise


class LedgerReader:
    """The read-only half of `coinml.ledger.Ledger`."""

    database: Database
    videos: Path | None

    def due(
        self,
        dataset: str,
        *,
        ids: Iterable[str] | None = None,
        faults: Iterable[Fault | str] | None = None,
        now: datetime | None = None,
        limit: int | None = None,
        retry_now: bool | Collection[Fault | str] = False,
        credentials: str | None = None,
    ) -> list[str]:
        """Ids of the videos that a run may try now: pending ones first, then the longest due.

        Args:
            dataset: Name of the dataset.
            ids: Only these.
            faults: Only videos in these states ("pending" is allowed).
            now: Default: the current time.
            limit: Maximum number of ids.
            retry_now: True: failed videos count as due before their time; or only those with
                these faults.
            credentials: Digest of the cookies and the proxy in use; videos that were restricted
                under other credentials are due.
        """
        query = (
            select(videos.c.video_id)
            .where(videos.c.dataset == dataset, videos.c.state != DOWNLOADED)
            .order_by((videos.c.state != PENDING), videos.c.next_attempt_at, videos.c.video_id)
        )
        if faults is not None:
            query = query.where(videos.c.state.in_([str(fault) for fault in faults]))
        if retry_now is not True:
            anyway = [str(fault) for fault in retry_now or ()]
            query = query.where(or_(_is_due(seconds(now), credentials), videos.c.state.in_(anyway)))
        wanted = None if ids is None else set(ids)
        if wanted is not None and len(wanted) <= CHUNK:
            query = query.where(videos.c.video_id.in_(wanted))
        found = [row.video_id for row in self._all(query)]
        if wanted is not None:
            found = [video_id for video_id in found if video_id in wanted]
        return found[:limit]

    def row(self, dataset: str, video_id: str) -> LedgerRow:
        """The row of one video.

        Raises:
            InvalidInputError: The ledger has no such video.
        """
        found = self._all(_rows(dataset).where(videos.c.video_id == video_id))
        if not found:
            raise InvalidInputError(f"the ledger has no video {video_id!r} in dataset {dataset!r}")
        return self._reader_of(dataset)(found[0])

    def rows(
        self, dataset: str, *, state: str | None = None, ids: Sequence[str] | None = None
    ) -> list[LedgerRow]:
        """The rows of a dataset ordered by id, or only those in a state or with these ids."""
        query = _rows(dataset).order_by(videos.c.video_id)
        if state is not None:
            query = query.where(videos.c.state == str(state))
        record = self._reader_of(dataset)
        if ids is None:
            return [record(row) for row in self._all(query)]
        return [
            record(row)
            for chunk in chunks(sorted(set(ids)))
            for row in self._all(query.where(videos.c.video_id.in_(chunk)))
        ]

    def rows_of(self, dataset: Dataset, *, state: str | None = None) -> list[LedgerRow]:
        """Like `rows`, for a dataset as read.

        Raises:
            InvalidInputError: The ledger knows another dataset by this name.
        """
        self.require_same(dataset)
        return self.rows(dataset.name, state=state)

    def require_same(self, dataset: Dataset) -> None:
        """Require that a dataset as read is the one that the ledger knows by its name.

        Raises:
            InvalidInputError: They are two; see `origins.require_same`.
        """
        known = self.origin(dataset.name)
        if known is None or known != origin_of(dataset):
            require_same(dataset, known, self.rows(dataset.name))

    def origin(self, dataset: str) -> str | None:
        """The folder or annotation file that a dataset is read from, if it was recorded."""
        found = self._all(select(datasets.c.origin).where(datasets.c.dataset == dataset))
        return str(found[0][0]) if found else None

    def attempts(self, dataset: str, video_id: str) -> list[AttemptRow]:
        """Every attempt at one video, oldest first."""
        query = _attempts(dataset).where(attempts.c.video_id == video_id)
        return [attempt_row(row._mapping) for row in self._all(query)]

    def last_attempts(
        self, dataset: str, ids: Sequence[str]
    ) -> dict[str, dict[str | None, AttemptRow]]:
        """The last attempt at each URL of videos; videos without any are absent.

        Attempts made before URLs were recorded are under None.
        """
        found: dict[str, dict[str | None, AttemptRow]] = {}
        for chunk in chunks(sorted(set(ids))):
            last = (
                select(func.max(attempts.c.id))
                .where(attempts.c.dataset == dataset, attempts.c.video_id.in_(chunk))
                .group_by(attempts.c.video_id, attempts.c.url)
            )
            for row in self._all(_attempts(dataset).where(attempts.c.id.in_(last))):
                found.setdefault(row.video_id, {})[row.url] = attempt_row(row._mapping)
        return found

    def sources(self, dataset: str) -> dict[str, int]:
        """Number of downloaded videos by the source that they came from, where it is known."""
        query = (
            select(videos.c.source, func.count())
            .where(
                videos.c.dataset == dataset,
                videos.c.state == DOWNLOADED,
                videos.c.source.is_not(None),
            )
            .group_by(videos.c.source)
            .order_by(videos.c.source)
        )
        return {row[0]: row[1] for row in self._all(query)}

    def smaller_than(self, dataset: str, short_side_px: int) -> int:
        """Number of downloaded videos whose shorter side is known and has fewer pixels."""
        query = select(func.count()).where(
            videos.c.dataset == dataset,
            videos.c.state == DOWNLOADED,
            videos.c.short_side_px < short_side_px,
        )
        return int(self._all(query)[0][0])

    def unknown(self, dataset: str) -> list[AttemptRow]:
        """Attempts whose message matched no fault rule, oldest first."""
        query = _attempts(dataset).where(attempts.c.rule == "unknown")
        return [attempt_row(row._mapping) for row in self._all(query)]

    def duplicates(self, dataset: str) -> list[tuple[str, ...]]:
        """Groups of ids whose files have the same content, each sorted, the largest first."""
        same = (
            select(videos.c.sha256)
            .where(videos.c.dataset == dataset, videos.c.sha256.is_not(None))
            .group_by(videos.c.sha256)
            .having(func.count() > 1)
        )
        query = select(videos.c.sha256, videos.c.video_id).where(
            videos.c.dataset == dataset, videos.c.sha256.in_(same)
        )
        groups: dict[str, list[str]] = {}
        for sha256, video_id in self._all(query):
            groups.setdefault(sha256, []).append(video_id)
        return sorted((tuple(sorted(ids)) for ids in groups.values()), key=lambda g: (-len(g), g))

    def contradictions(self, dataset: str) -> list[dict[str, str]]:
        """Class by id of the videos whose files have one content and that have several classes."""
        groups = self.duplicates(dataset)
        ids = [one for group in groups for one in group]
        labels = {row.video_id: row.label for row in self.rows(dataset, ids=ids)} if ids else {}
        found = [{one: labels[one] for one in group if one in labels} for group in groups]
        return [group for group in found if len(set(group.values())) > 1]

    def asked_since(self, dataset: str, moment: datetime) -> int:
        """Number of attempts that began at or after a moment."""
        query = select(func.count()).where(
            attempts.c.dataset == dataset, attempts.c.started_at >= moment.timestamp()
        )
        return int(self._all(query)[0][0])

    def last_answer(self, dataset: str) -> datetime | None:
        """When the last attempt began that a source answered, be it that the video is gone."""
        silent = [str(Fault.TRANSIENT), str(Fault.BLOCKED), str(Fault.LOCAL)]
        query = select(func.max(attempts.c.started_at)).where(
            attempts.c.dataset == dataset, attempts.c.outcome.not_in(silent)
        )
        moment = finite(self._all(query)[0][0])
        return None if moment is None else datetime.fromtimestamp(moment, UTC)

    def attempts_in_run(
        self, dataset: str, ids: Sequence[str], *, run_id: str
    ) -> dict[str, Counter[str]]:
        """Number of attempts of a run by video and outcome; videos without any are absent."""
        counts: dict[str, Counter[str]] = {}
        for chunk in chunks(sorted(set(ids))):
            query = (
                select(attempts.c.video_id, attempts.c.outcome, func.count())
                .where(
                    attempts.c.dataset == dataset,
                    attempts.c.run_id == run_id,
                    attempts.c.video_id.in_(chunk),
                )
                .group_by(attempts.c.video_id, attempts.c.outcome)
            )
            for video_id, outcome, count in self._all(query):
                counts.setdefault(video_id, Counter())[outcome] = count
        return counts

    def tries_in_run(
        self, dataset: str, ids: Sequence[str], *, run_id: str
    ) -> Counter[tuple[str, str | None]]:
        """Number of attempts of a run by video and URL."""
        counts: Counter[tuple[str, str | None]] = Counter()
        for chunk in chunks(sorted(set(ids))):
            query = (
                select(attempts.c.video_id, attempts.c.url, func.count())
                .where(
                    attempts.c.dataset == dataset,
                    attempts.c.run_id == run_id,
                    attempts.c.video_id.in_(chunk),
                )
                .group_by(attempts.c.video_id, attempts.c.url)
            )
            for video_id, url, count in self._all(query):
                counts[video_id, url] = count
        return counts

    def failures(self, dataset: str, video_id: str, fault: Fault, *, url: str | None = None) -> int:
        """Number of attempts over all runs that ended in this fault since the last success.

        With `url`, only attempts at this URL.
        """
        of_video = and_(attempts.c.dataset == dataset, attempts.c.video_id == video_id)
        last = (
            select(func.coalesce(func.max(attempts.c.id), 0))
            .where(of_video, attempts.c.outcome == DOWNLOADED)
            .scalar_subquery()
        )
        # A corrupt file can have been recorded as a success first, so a success does not reset
        # the count of `CORRUPT`.
        since = [] if fault is Fault.CORRUPT else [attempts.c.id > last]
        at_url = [] if url is None else [attempts.c.url == url]
        query = select(func.count()).where(
            of_video, attempts.c.outcome == str(fault), *since, *at_url
        )
        return int(self._all(query)[0][0])

    def status(
        self,
        dataset: str,
        *,
        now: datetime | None = None,
        rate_per_hour: float | None = None,
        credentials: str | None = None,
    ) -> Status:
        """Counts of a dataset's videos by state; with `rate_per_hour` also the hours to go.

        Raises:
            InvalidInputError: The ledger has no such dataset.
        """
        due = _is_due(seconds(now), credentials)
        query = (
            select(
                videos.c.subset,
                videos.c.label,
                case((videos.c.state.in_(STATES), videos.c.state), else_=PENDING).label("state"),
                and_(videos.c.state != DOWNLOADED, due).label("due"),
                (videos.c.next_attempt_at.is_not(None)).label("later"),
                func.count().label("count"),
            )
            .where(videos.c.dataset == dataset)
            .group_by("subset", "label", "state", "due", "later")
        )
        groups = [
            (
                text(row.subset),
                text(row.label),
                row.state,
                bool(row.due),
                bool(row.later),
                row.count,
            )
            for row in self._all(query)
        ]
        if not groups:
            known = ", ".join(self.datasets()) or "none yet"
            raise InvalidInputError(f"the ledger has no dataset {dataset!r} (it has: {known})")
        return summarise(dataset, groups, rate_per_hour=rate_per_hour)

    def digest(self, dataset: str) -> str:
        """12 hex digits that change with any video's state or file."""
        query = select(videos.c.video_id, videos.c.state, videos.c.sha256).where(
            videos.c.dataset == dataset
        )
        # Sorted here, since databases order text differently.
        lines = sorted(f"{row[0]}\t{row[1]}\t{row[2] or ''}\n" for row in self._all(query))
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:12]

    def datasets(self) -> list[str]:
        """The names of all datasets, sorted."""
        return sorted(row[0] for row in self._all(select(videos.c.dataset).distinct()))

    def _reader_of(self, dataset: str) -> Callable[[Any], LedgerRow]:
        """A function that makes a record of a row of this dataset."""
        folder = None if self.videos is None else VideosFolder(self.videos / dataset)
        return lambda row: ledger_row(row._mapping, folder=folder)

    def _all(self, query: Select[Any]) -> Sequence[Any]:
        return self.database.read(lambda connection: connection.execute(query).all())


@functools.cache
def downloader_version() -> str | None:
    """The version of the installed yt-dlp, without importing it."""
    try:
        return importlib.metadata.version("yt-dlp")
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_due(now: float, credentials: str | None) -> ColumnElement[bool]:
    # A state that another program wrote counts as pending.
    ways = [
        videos.c.state == PENDING,
        videos.c.state.not_in(STATES),
        videos.c.next_attempt_at <= now,
    ]
    for fault, policy in POLICY.items():
        # Written by a clock that was ahead: nobody asked for such a long wait.
        too_far = videos.c.next_attempt_at > now + longest_wait_s(fault)
        ways.append(
            and_(videos.c.state == str(fault), videos.c.updated_at > now + CLOCK_SLACK_S, too_far)
        )
        if policy.returns_with == "downloader":
            other = videos.c.tool_version != downloader_version()
            ways.append(and_(videos.c.state == str(fault), other))
        elif policy.returns_with == "credentials" and credentials is not None:
            other = func.coalesce(videos.c.credentials, "") != credentials
            ways.append(and_(videos.c.state == str(fault), other))
    return func.coalesce(or_(*ways), False)


_ROW_COLUMNS = tuple(videos.c[name] for name in LedgerRow.__dataclass_fields__)
_ATTEMPT_COLUMNS = tuple(attempts.c[name] for name in AttemptRow.__dataclass_fields__)


def _rows(dataset: str) -> Select[Any]:
    return select(*_ROW_COLUMNS).where(videos.c.dataset == dataset)


def _attempts(dataset: str) -> Select[Any]:
    return select(*_ATTEMPT_COLUMNS).where(attempts.c.dataset == dataset).order_by(attempts.c.id)
