"""The parts of a study: embedding, its cost, and the heads under each condition."""

from __future__ import annotations

from functools import partial

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from coinml.data.records import Target
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.options import EmbedOptions
from coinml.embedding.quantization import load_set_encoder
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import find_spec
from coinml.heads.kinds import head_kind
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.studies import costs, resolutions
from coinml.studies.build_report import ReportExtras
from coinml.studies.condition_data import load_condition_data
from coinml.studies.costs import Cost
from coinml.studies.plans import Condition, StudyPlan
from coinml.studies.report import StudyReport, markdown
from coinml.studies.resolutions import Reencoded
from coinml.studies.run_study import run_study
from coinml.tracking.mlflow_store import home_store
from tasks.artifact_keys import key_of
from tasks.links import flow_run_tags, log_artifacts


@task(cache_policy=NO_CACHE)
def measure_costs(
    jobs: list[EmbedJob],
    conditions: tuple[Condition, ...],
    dataset: str,
    *,
    options: EmbedOptions,
) -> list[Cost]:
    """Time the embedding of the same videos under each condition."""
    settings = Settings()
    return costs.measure_costs(
        jobs,
        conditions,
        device=settings.device,
        decoder=options.decoder,
        kernel=options.kernel,
        load=partial(load_set_encoder, settings.embeddings_root, dataset),
        on_video=lambda: progress.advance("time"),
    )


@task(task_run_name="embed_reencoded {rows}", cache_policy=NO_CACHE)
def embed_reencoded(
    jobs: list[EmbedJob],
    rows: int,
    dataset: str,
    set_options: SetOptions,
    *,
    options: EmbedOptions,
) -> Reencoded:
    """Embed copies of videos that are re-encoded at this picture height."""
    settings = Settings()
    own = find_spec(settings.embeddings_root, dataset, set_options)
    spec = resolutions.reencoded_spec(own, rows)
    return resolutions.embed_reencoded(
        jobs,
        rows,
        encoder=load_set_encoder(
            settings.embeddings_root, dataset, set_options, settings.device, options.kernel
        ),
        embedding_set=EmbeddingSet.open(settings.embeddings_root, spec.dataset, spec, create=True),
        folder=settings.data_dir / "studies",
        decoder=options.decoder,
        on_videos=lambda count: progress.advance("re-encode", count),
    )


@task(cache_policy=NO_CACHE)
def conduct_study(
    plan: StudyPlan,
    selection: Selection,
    options: SetOptions,
    *,
    target: Target,
    heads: tuple[str, ...],
    seeds: int,
    measured: list[Cost],
    wanted_sizes: dict[int, str],
    notes: tuple[str, ...],
) -> StudyReport:
    """Train and evaluate heads under every condition, and log the results."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    data = load_condition_data(
        plan,
        dataset,
        options,
        target=target,
        embeddings_root=settings.embeddings_root,
        ledger_url=settings.ledger_url,
        with_clips=any(head_kind(head).takes_clips for head in heads),
    )
    return run_study(
        plan,
        data,
        heads=heads,
        seeds=seeds,
        device=settings.device,
        store=home_store(settings),
        extras=ReportExtras(costs=measured, predicted_sizes=wanted_sizes, notes=notes),
        tags=flow_run_tags(),
        on_fit=lambda: progress.advance("fit"),
    )


@task(cache_policy=NO_CACHE)
def publish_study(report: StudyReport, target: Target) -> None:
    """Publish a study's results under a stable key."""
    key = artifact_key(report.study, report.dataset, target)
    create_markdown_artifact(key=key, markdown=markdown(report), description=report.question)
    log_artifacts(key)


def artifact_key(study: str, dataset: str, target: Target = "task") -> str:
    """Key of the artifact of a study of a dataset."""
    return key_of("study", study, dataset, *(() if target == "task" else (target,)))
