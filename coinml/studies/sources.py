"""Where a study's tables come from: the embedding set of each condition, with labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinml.data.records import Dataset, Target
from coinml.data.splits import unit_hash
from coinml.data.targets import examples
from coinml.embedding.jobs import EmbedJob, plan_jobs
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import build_table, clips_by_video
from coinml.ledger import DOWNLOADED, Ledger
from coinml.studies.plans import ORIGINAL, Plan
from coinml.studies.resolutions import reencoded_sha256, reencoded_spec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """What is embedded under one condition.

    Attributes:
        table: As `dataset.build_table` makes it.
        fingerprint: Of the embedding set.
        clips: Each video's clips, where a head looks at them.
    """

    table: pd.DataFrame
    fingerprint: str
    clips: Mapping[str, NDArray[np.float16]] | None = None


def sources_of(
    plan: Plan,
    dataset: Dataset,
    options: SetOptions,
    *,
    target: Target = "task",
    embeddings_root: str,
    ledger_url: str,
    with_clips: bool = False,
) -> dict[str, Source]:
    """What is embedded under each condition that has a set of its own.

    A study whose conditions look at one set has one source, under the name of its reference.

    Args:
        plan: What is compared.
        dataset: Its videos, with labels and splits.
        options: The set that the study looks at where conditions have none.
        target: Whose classes.
        embeddings_root: Where the sets are.
        ledger_url: Which files are here.
        with_clips: Whether a head looks at a video's clips.

    Raises:
        InvalidInputError: A set is not there, or no video of the dataset is in it.
    """
    with Ledger(ledger_url) as ledger:
        rows = ledger.rows(dataset.name, state=DOWNLOADED)
    hashes = {row.video_id: row.sha256 for row in rows if row.sha256}
    found = {}
    for name, spec, sha256s in _sets(plan, dataset.name, options, hashes):
        embedding_set = EmbeddingSet.open(embeddings_root, spec.dataset, spec)
        extent: Any = spec.extent
        clips = None
        if with_clips:
            wanted = examples(dataset.videos, target=target, extent=extent)
            clips = clips_by_video(embedding_set.clips(), sha256s, wanted=wanted)
        embedded = embedding_set.videos(sha256s)
        found[name] = Source(
            table=build_table(dataset.videos, embedded, target=target, extent=extent),
            fingerprint=spec.fingerprint,
            clips=clips,
        )
    return found


def files_here(
    dataset: Dataset, ledger_url: str, options: SetOptions, *, split: str | None = None
) -> list[EmbedJob]:
    """What of a dataset is here, as the engine takes it, in an order that chance decided.

    Args:
        dataset: Its videos.
        ledger_url: Which files are here.
        options: Which part of each is embedded.
        split: Only this one's.
    """
    videos = [video for video in dataset.videos if split is None or video.split == split]
    with Ledger(ledger_url) as ledger:
        rows = ledger.rows(dataset.name, state=DOWNLOADED)
    jobs = plan_jobs(videos, rows, options.extent or "video")
    return sorted(jobs, key=lambda job: unit_hash(job.video_id, seed=0))


def _sets(
    plan: Plan, dataset: str, options: SetOptions, hashes: Mapping[str, str]
) -> list[tuple[str, SetSpec, Mapping[str, str]]]:
    own = options.spec(dataset)
    if plan.has_sets:
        return [
            (condition.name, condition.set_options.spec(dataset), hashes)
            for condition in plan.conditions
            if condition.set_options is not None
        ]
    if plan.study != "resolution":
        return [(plan.reference, own, hashes)]
    found: list[tuple[str, SetSpec, Mapping[str, str]]] = [(ORIGINAL, own, hashes)]
    for value in plan.values:
        rows = int(value)
        made = {video_id: reencoded_sha256(sha256, rows) for video_id, sha256 in hashes.items()}
        name = next(c.name for c in plan.conditions if c.value == value)
        found.append((name, reencoded_spec(own, rows), made))
    return found
