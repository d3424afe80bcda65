"""Adopting video files that exist already, each verified first."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from coinml.collection.video_folder import Verify, VideoFolder, verified_facts
from coinml.data.records import Dataset
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.data.video_files import find_videos
from coinml.errors import CorruptVideoError, InvalidInputError, LocalError
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, FileFacts, Ledger, LedgerRow
from coinml.runtime.cpus import cpu_count

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of files done and the number of files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptReport:
    """The result of adopting files.

    Attributes:
        adopted: Ids whose file is now in the ledger.
        already: Ids whose file was in the ledger before.
        unknown: Names of files that match no id of the dataset.
        failed: Id -> why its file was refused.
        notes: What was skipped in the folder, a sentence each.
    """

    adopted: tuple[str, ...] = ()
    already: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def adopt_folder(
    ledger: Ledger,
    dataset: str,
    folder: Path | str,
    *,
    videos_dir: Path | str,
    link: bool = False,
    workers: int | None = None,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> AdoptReport:
    """Copy the videos of a folder and its subfolders to the folder of collected ones.

    A file's name without extension is its id; which files are videos is decided by
    `coinml.data.video_files`. A file that is missing, cannot be read or does not decode is not
    copied, and its video stays due; videos that are downloaded already are skipped.

    Args:
        ledger: Contains the dataset's videos (`Ledger.register`).
        dataset: Name of the dataset.
        folder: The folder of the files, which stay there.
        videos_dir: Where copies go, as `<id>.<ext>`.
        link: Make hard links instead of copies where the file system allows it.
        workers: Files verified at once; default: one per CPU.
        verify: Full decode of a file; default: `coinml.media` in killable processes.
        progress: Called after each file.

    Raises:
        InvalidInputError: There is no such folder, or no video file in it.
        LocalError: A file cannot be read, or the disk is full.
    """
    folder, target = Path(folder), VideoFolder(Path(videos_dir).absolute())
    if not folder.is_dir():
        raise InvalidInputError(f"{folder}: no such folder")
    found_videos = find_videos(folder)
    files = found_videos.files
    if not files:
        raise InvalidInputError(
            f"{folder}: no video file in it or below it ({' '.join(VIDEO_ENDINGS)}); hidden and "
            "generated files are skipped"
        )
    rows = {row.video_id: row for row in ledger.rows(dataset)}
    found: dict[str, Path] = {}
    unknown: list[str] = []
    for path in files:
        if path.stem in rows:
            found.setdefault(path.stem, path)
        else:
            unknown.append(path.name)
    already = tuple(video_id for video_id in found if _is_here(rows[video_id]))
    wanted = {video_id: path for video_id, path in found.items() if video_id not in set(already)}
    target.check_room()

    def adopt(video_id: str) -> FileFacts:
        facts = _facts(wanted[video_id], rows[video_id], verify)
        copy = target.incoming / (video_id + wanted[video_id].suffix.lower())
        _copy(wanted[video_id], copy, link=link)
        facts = replace(facts, mtime_ns=copy.stat().st_mtime_ns, origin="import")
        return target.put(copy, facts)

    adopted, failed = _adopt_all(wanted, adopt, ledger, dataset, workers, progress)
    return AdoptReport(
        adopted=adopted,
        already=already,
        unknown=tuple(unknown),
        failed=failed,
        notes=found_videos.notes(),
    )


def adopt_in_place(
    ledger: Ledger,
    dataset: Dataset,
    *,
    workers: int | None = None,
    verify: Verify | None = None,
    progress: Progress | None = None,
) -> AdoptReport:
    """Record the files of a folder dataset where they are.

    A file that has neither moved nor changed since it was verified is not verified again. A file
    that is missing, cannot be read or does not decode is recorded as corrupt.

    Args:
        ledger: Contains the dataset's videos (`Ledger.register`).
        dataset: A dataset whose videos have a `path`.
        workers: Files verified at once; default: one per CPU.
        verify: Full decode of a file; default: `coinml.media` in killable processes.
        progress: Called after each file.

    Raises:
        InvalidInputError: A video of the dataset has no path.
        LocalError: A file cannot be read.
    """
    paths: dict[str, Path] = {}
    for video in dataset.videos:
        if video.path is None:
            raise InvalidInputError(f"{dataset.name}: video {video.video_id!r} has no file")
        paths[video.video_id] = Path(video.path).absolute()
    rows = {row.video_id: row for row in ledger.rows_of(dataset) if row.video_id in paths}
    already = tuple(
        video_id for video_id, row in rows.items() if _is_unchanged(row, paths[video_id])
    )
    wanted = {video_id: paths[video_id] for video_id in rows if video_id not in set(already)}

    def adopt(video_id: str) -> FileFacts:
        return replace(_facts(wanted[video_id], rows[video_id], verify), origin="in_place")

    adopted, failed = _adopt_all(
        wanted, adopt, ledger, dataset.name, workers, progress, record_faults=True
    )
    return AdoptReport(adopted=adopted, already=already, failed=failed)


def _adopt_all(
    ids: Iterable[str],
    adopt: Callable[[str], FileFacts],
    ledger: Ledger,
    dataset: str,
    workers: int | None,
    progress: Progress | None,
    *,
    record_faults: bool = False,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Adopt files in parallel and record each as soon as it is done."""
    ids = list(ids)
    adopted: list[str] = []
    failed: dict[str, str] = {}

    def attempt(video_id: str) -> FileFacts | CorruptVideoError:
        try:
            return adopt(video_id)
        except CorruptVideoError as err:
            return err

    with ThreadPoolExecutor(workers or cpu_count()) as pool:
        try:
            for done, (video_id, facts) in enumerate(zip(ids, pool.map(attempt, ids), strict=True)):
                if isinstance(facts, FileFacts):
                    ledger.record_success(dataset, video_id, file=facts, attempt=None)
                    adopted.append(video_id)
                else:
                    failed[video_id] = str(facts)
                    if record_faults:
                        ledger.record_fault(
                            dataset,
                            video_id,
                            fault=Fault.CORRUPT,
                            message=str(facts),
                            next_attempt_at=None,
                            attempt=None,
                            rule="decode",
                        )
                if progress is not None:
                    progress(done + 1, len(ids))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(adopted), failed


def _facts(path: Path, row: LedgerRow, verify: Verify | None) -> FileFacts:
    if not path.is_file():
        raise CorruptVideoError(f"{path}: the file is missing")
    try:
        path.open("rb").close()
    except OSError as err:
        raise CorruptVideoError(f"{path}: cannot be read: {err.strerror}") from err
    return verified_facts(path, verify=verify, duration_s=row.duration_s)


def _is_here(row: LedgerRow) -> bool:
    return row.state == DOWNLOADED and row.path is not None and Path(row.path).is_file()


def _is_unchanged(row: LedgerRow, path: Path) -> bool:
    if row.state != DOWNLOADED or row.path != str(path) or not path.is_file():
        return False
    stat = path.stat()
    return (stat.st_size, stat.st_mtime_ns) == (row.size_bytes, row.mtime_ns)


def _copy(path: Path, target: Path, *, link: bool) -> None:
    try:
        target.unlink(missing_ok=True)
        if link:
            try:
                target.hardlink_to(path)
            except OSError as err:
                log.debug("%s: no hard link (%s); copying", path, err)
            else:
                return
        shutil.copyfile(path, target)
    except OSError as err:
        target.unlink(missing_ok=True)
        raise LocalError(f"{target}: {err.strerror}") from err
