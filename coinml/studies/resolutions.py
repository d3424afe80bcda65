"""Study `resolution`: embed videos re-encoded at a smaller picture height."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import ClipEncoder
from coinml.errors import CorruptVideoError, LocalError
from coinml.media import probe
from coinml.media.reencoding import RECIPE, reencode
from coinml.runtime.cpus import cpu_count
from coinml.studies.plans import rows_name

_BATCH = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoded:
    """What was re-encoded and embedded at one resolution.

    Attributes:
        rows: Picture height of the re-encoded files in pixels (of the shorter side).
        videos: Number of videos in the set.
        embedded: Number of them that were embedded in this call.
        no_larger: Videos whose original is no higher: they were compressed again, not scaled.
        failed: Videos that could not be re-encoded or embedded.
    """

    rows: int
    videos: int
    embedded: int
    no_larger: int
    failed: int


def reencoded_spec(spec: SetSpec, rows: int) -> SetSpec:
    """The spec of the set with a dataset's videos re-encoded at this picture height."""
    return replace(spec, dataset=f"{spec.dataset}@{rows_name(rows)}")


def reencoded_sha256(file_sha256: str, rows: int) -> str:
    """Identifies a re-encoded file by its source and recipe, so that it need not be kept."""
    return hashlib.sha256(f"{file_sha256} {RECIPE} {rows}".encode()).hexdigest()


def embed_reencoded(
    jobs: Sequence[EmbedJob],
    rows: int,
    *,
    encoder: ClipEncoder,
    embedding_set: EmbeddingSet,
    folder: Path,
    decoder: str = "auto",
    on_videos: Callable[[int], None] | None = None,
) -> Reencoded:
    """Re-encode and embed the videos that are not yet in the set; then delete the files.

    Args:
        jobs: The original videos.
        rows: Picture height of the re-encoded files in pixels.
        encoder: The encoder of the set's spec.
        embedding_set: A set whose spec is from `reencoded_spec`.
        folder: Folder for the re-encoded files, some dozens at a time.
        decoder: As in `embed`.
        on_videos: Called with the number of videos of each batch that is done.

    Raises:
        LocalError: This machine is the cause of a failure.
    """
    wanted = {job.video_id: reencoded_sha256(job.file_sha256, rows) for job in jobs}
    done = embedding_set.done(set_aside=True)
    todo = [
        job
        for job in jobs
        if (job.video_id, job.start_s, job.end_s, wanted[job.video_id]) not in done
    ]
    tell = on_videos or (lambda _count: None)
    tell(len(jobs) - len(todo))
    embedded = failed = 0
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(todo), _BATCH):
        batch = todo[start : start + _BATCH]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = _reencode_all(batch, wanted, rows, Path(place))
            report = embed(made, encoder, embedding_set, decoder=decoder)
        embedded += report.embedded
        failed += len(batch) - report.embedded
        tell(len(batch))
    return Reencoded(
        rows=rows,
        videos=len(jobs) - failed,
        embedded=embedded,
        no_larger=sum(_short_side(job.path) <= rows for job in jobs),
        failed=failed,
    )


def _reencode_all(
    jobs: Sequence[EmbedJob], wanted: dict[str, str], rows: int, folder: Path
) -> list[EmbedJob]:
    def one(numbered: tuple[int, EmbedJob]) -> EmbedJob | None:
        number, job = numbered
        target = folder / f"{number}.mp4"
        try:
            reencode(job.path, target, rows=rows)
        except CorruptVideoError:
            return None
        return replace(job, path=str(target), file_sha256=wanted[job.video_id])

    # Threads suffice: nearly all of the time is spent in FFmpeg, which releases the GIL.
    with ThreadPoolExecutor(cpu_count()) as threads:
        return [job for job in threads.map(one, enumerate(jobs)) if job is not None]


def _short_side(path: str) -> int:
    try:
        info = probe(path)
    except (CorruptVideoError, LocalError):
        return 0
    return min(info.width, info.height)
