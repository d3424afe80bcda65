"""Counts that the flows report: what is collected and embedded, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from coinml.data.records import Dataset
from coinml.embedding.jobs import EmbedJob, count_done
from coinml.embedding.report import EmbedReport
from coinml.embedding_sets import Done
from coinml.embedding_sets.spec import SetSpec
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING, Ledger, LedgerRow
from coinml.runtime.settings import Settings
from tasks.summaries import CollectReport, EmbedSummary


def collect_report(
    dataset: Dataset, *, tried: Sequence[str], blocked_until: datetime | None
) -> CollectReport:
    """Count a dataset's videos in the ledger by state.

    Args:
        dataset: Whose videos are counted.
        tried: The ids that this run tried.
        blocked_until: When the source may be tried again, if it refuses everyone.
    """
    selected = {video.video_id for video in dataset.videos}
    with Ledger.of(Settings()) as ledger:
        rows = [row for row in ledger.rows(dataset.name) if row.video_id in selected]
        contradictions = ledger.contradictions(dataset.name)
    downloaded = {row.video_id for row in rows if row.state == DOWNLOADED}
    return CollectReport(
        dataset=dataset.name,
        total=len(rows),
        downloaded=len(downloaded),
        fetched=len(downloaded & set(tried)),
        asked=len(tried),
        faults=dict(Counter(row.state for row in rows if row.state in set(Fault))),
        still_due=sum(_still_due(row) for row in rows),
        blocked_until=blocked_until,
        contradictions=tuple(contradictions),
    )


def _still_due(row: LedgerRow) -> bool:
    """Whether a later run will try it by itself, before weeks have passed."""
    if row.state in (DOWNLOADED, Fault.GONE):
        return False
    return row.state == PENDING or row.next_attempt_at is not None


def embed_summary(
    reports: Sequence[EmbedReport],
    jobs: Sequence[EmbedJob],
    done: set[Done],
    *,
    spec: SetSpec,
    workers: int,
    seconds: float,
    without_extent: int,
) -> EmbedSummary:
    """Add up the reports of a run's shards, and count the jobs that are in the set.

    Args:
        reports: One per shard.
        jobs: All jobs of the selection.
        done: What is in the set now.
        spec: The set's.
        workers: Number of processes that embedded.
        seconds: Wall time of the embedding.
        without_extent: Number of videos whose annotations do not say where the extent is.
    """
    counts = count_done(jobs, done)
    decoders: Counter[str] = Counter()
    for report in reports:
        decoders.update(report.decoders)
    return EmbedSummary(
        dataset=spec.dataset,
        fingerprint=spec.fingerprint,
        videos=len(counts),
        embedded=sum(report.embedded for report in reports),
        failed={key: why for report in reports for key, why in report.failed.items()},
        clips=sum(report.clips for report in reports),
        decoders=dict(decoders),
        frames_substituted=sum(report.frames_substituted for report in reports),
        workers=workers,
        seconds=seconds,
        decode_wait_s=sum(report.decode_wait_s for report in reports),
        encode_s=sum(report.encode_s for report in reports),
        write_s=sum(report.write_s for report in reports),
        segments=sum(counts.values()) if spec.extent == "segments" else None,
        without_extent=without_extent,
        kernels=tuple(sorted({report.kernel for report in reports if report.kernel})),
    )
