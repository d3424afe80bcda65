"""Study `resolution`: embed videos whose picture went through fewer rows."""

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
    """What became of the videos at one resolution.

    Attributes:
        rows: Rows of the picture on the way (of its shorter side).
        videos: Videos in the set.
        embedded: How many of them were done now.
        no_larger: Videos whose own picture has no more rows: they were compressed again, and
            no more.
        failed: Videos that could not be re-encoded or embedded.
    """

    rows: int
    videos: int
    embedded: int
    no_larger: int
    failed: int


def reencoded_spec(spec: SetSpec, rows: int) -> SetSpec:
    """The spec of the set that holds a dataset's videos as they look after so many rows."""
    return replace(spec, dataset=f"{spec.dataset}@{rows_name(rows)}")


def reencoded_sha256(file_sha256: str, rows: int) -> str:
    """Names a re-encoded file by what it is made of, so that it need not be kept."""
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
    """Re-encode and embed what is not yet in the set; the files are deleted afterwards.

    Args:
        jobs: The videos as they came.
        rows: Rows of the picture on the way.
        encoder: The one that the set was made for.
        embedding_set: Made with `reencoded_spec`.
        folder: Where the files lie meanwhile, a few dozen at a time.
        decoder: As `embed` has it.
        on_videos: Called with the number of videos that a batch got through.

    Raises:
        LocalError: This machine is at fault.
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

    # Threads: nearly all of the time is spent in FFmpeg, which lets others run.
    with ThreadPoolExecutor(cpu_count()) as threads:
        return [job for job in threads.map(one, enumerate(jobs)) if job is not None]


def _short_side(path: str) -> int:
    try:
        info = probe(path)
    except (CorruptVideoError, LocalError):
        return 0
    return min(info.width, info.height)
