"""Embedding what is collected of a dataset in one call."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.data.records import Dataset, Extent
from coinml.data.targets import require_spans
from coinml.embedding import engine
from coinml.embedding.jobs import plan_jobs, require_jobs
from coinml.embedding.report import Progress
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.ledger import DOWNLOADED, Ledger
from coinml.runtime.addresses import Url

if TYPE_CHECKING:
    from coinml.encoder.clip_encoder import ClipEncoder

logger = logging.getLogger(__name__)


def embed(
    dataset: Dataset,
    ledger: Ledger,
    encoder: ClipEncoder,
    root: Path | str,
    *,
    extent: Extent = "video",
    snap: str = "exact",
    decoder: str = "auto",
    deadline_s: float = 60.0,
    progress: Progress | None = None,
) -> EmbeddingSet:
    """Embed the collected videos of a dataset that are not yet in the embedding set.

    The set is created if it does not exist; encoder, extent and snap rule identify it. A file that
    does not decode is logged and quarantined in the ledger, and does not stop the others.

    Args:
        dataset: Which videos.
        ledger: Says where their files are.
        encoder: As `load_encoder` returns it.
        root: Folder or fsspec URL of all embedding sets.
        extent: What is embedded of a video: `video`, `annotated` or `segments`.
        snap: Where clips may begin: `exact` or `keyframe`.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`.
        deadline_s: Seconds that decoding one video may take.
        progress: Called with the number of videos that are through, and of all.

    Raises:
        InvalidInputError: No video is collected or none has the extent, or an option has no such
            value.
        LocalError: This machine is at fault; no video is blamed.
    """
    require_spans(dataset.videos, extent)
    spec = SetSpec(encoder=encoder.spec, dataset=dataset.name, extent=extent, snap=snap)
    jobs = plan_jobs(dataset.videos, ledger.rows_of(dataset, state=DOWNLOADED), extent)
    require_jobs(dataset, jobs, extent)
    embedding_set = EmbeddingSet.open(Url(root), dataset.name, spec, create=True)
    report = engine.embed(
        jobs,
        encoder,
        embedding_set,
        decoder=decoder,
        deadline_s=deadline_s,
        progress=progress,
    )
    for video_id, reason in report.failed.items():
        logger.warning("%s is not embedded: %s", video_id, reason)
    for video_id in report.broken:
        ledger.quarantine(dataset.name, video_id, report.failed[video_id])
    return embedding_set
