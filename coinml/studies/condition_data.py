"""What a study reads: the embeddings of each condition, and the files that it embeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from coinml.data.records import SPLITS, Dataset, Target
from coinml.data.splits import unit_hash
from coinml.data.targets import examples
from coinml.embedding.jobs import EmbedJob, plan_jobs
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import find_spec
from coinml.embedding_sets.spec import SetSpec
from coinml.errors import InvalidInputError
from coinml.ledger import DOWNLOADED, Ledger
from coinml.studies.plans import ORIGINAL, StudyPlan
from coinml.studies.resolutions import reencoded_sha256, reencoded_spec
from coinml.training.training_data import TrainingData, read_training_data


def load_condition_data(
    plan: StudyPlan,
    dataset: Dataset,
    options: SetOptions,
    *,
    target: Target = "task",
    embeddings_root: str,
    ledger_url: str,
    with_clips: bool = False,
) -> dict[str, TrainingData]:
    """The embeddings of each condition that has a set of its own.

    A study whose conditions share one set has one entry, under the name of its reference.

    Args:
        plan: What is compared.
        dataset: Its videos, with labels and splits.
        options: The set of the conditions that have none of their own.
        target: Whose classes.
        embeddings_root: Folder or fsspec URL of the embedding sets.
        ledger_url: SQLAlchemy URL of the ledger, which says which files are present.
        with_clips: Whether to read the embeddings of single clips too.

    Raises:
        InvalidInputError: A set does not exist, or has no video of the dataset.
    """
    with Ledger(ledger_url) as ledger:
        rows = ledger.rows_of(dataset, state=DOWNLOADED)
    hashes = {row.video_id: row.sha256 for row in rows if row.sha256}
    return {
        name: read_training_data(
            dataset,
            EmbeddingSet.open(embeddings_root, spec.dataset, spec),
            sha256s,
            target=target,
            with_clips=with_clips,
        )
        for name, spec, sha256s in _sets(
            plan, options, hashes, find=partial(find_spec, embeddings_root, dataset.name)
        )
    }


def files_here(
    dataset: Dataset,
    ledger_url: str,
    options: SetOptions,
    *,
    videos_dir: Path | None = None,
) -> list[EmbedJob]:
    """The present files of a dataset as jobs of the engine, in a random but fixed order.

    Args:
        dataset: Its videos.
        ledger_url: SQLAlchemy URL of the ledger, which says which files are present.
        options: Say which part of each video is embedded.
        videos_dir: `videos` of `Ledger`.
    """
    with Ledger(ledger_url, videos=videos_dir) as ledger:
        rows = ledger.rows_of(dataset, state=DOWNLOADED)
    jobs = plan_jobs(dataset.videos, rows, options.extent or "video")
    return sorted(jobs, key=lambda job: unit_hash(job.video_id, seed=0))


def require_splits(dataset: Dataset, jobs: Sequence[EmbedJob], *, target: Target) -> None:
    """Require that heads can be trained and measured on files, before hours of embedding.

    Args:
        dataset: Says the splits and classes.
        jobs: The files that are here.
        target: Whose classes.

    Raises:
        InvalidInputError: A split has no file, or those of training are of one class.
    """
    here = {job.video_id for job in jobs}
    found = [one for one in examples(dataset.videos, target=target) if one.video_id in here]
    counts = {split: sum(one.split == split for one in found) for split in SPLITS}
    if not all(counts.values()):
        told = ", ".join(f"{count} of {split}" for split, count in counts.items())
        raise InvalidInputError(
            f"{dataset.name}: a study needs videos of train, val and test; collected are {told}"
        )
    if len(trained := {one.label for one in found if one.split == "train"}) < 2:
        raise InvalidInputError(
            f"{dataset.name}: a study needs training videos of two classes or more; those that "
            f"are collected are all {min(trained)!r}"
        )


def _sets(
    plan: StudyPlan,
    options: SetOptions,
    hashes: Mapping[str, str],
    *,
    find: Callable[[SetOptions], SetSpec],
) -> list[tuple[str, SetSpec, Mapping[str, str]]]:
    """Name, set and files' hashes of each condition with a set."""
    own = find(options)
    if plan.has_sets:
        return [
            (condition.name, find(condition.set_options), hashes)
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
