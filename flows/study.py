"""Flow `study`: test a claim on the downloaded videos."""

from __future__ import annotations

from prefect import flow

from coinml.embedding.jobs import EmbedJob
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets.options import SetOptions
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.studies.condition_data import files_here, require_splits
from coinml.studies.costs import ROUNDS
from coinml.studies.options import StudyOptions
from coinml.studies.plans import StudyPlan, make_plan
from coinml.studies.report import StudyReport
from coinml.studies.run_study import experiment_name
from flows.embed import embed
from tasks.events import tagged
from tasks.outcomes import completed
from tasks.study import conduct_study, embed_reencoded, measure_costs, publish_study
from tasks.training import check_tracking


@flow(name="study", flow_run_name="study {study} {selection.title}")
def study(
    study: str,
    selection: Selection,
    set_options: SetOptions = SetOptions(),
    embedding: EmbedOptions = EmbedOptions(),
    options: StudyOptions = StudyOptions(),
) -> StudyReport:
    """Embed the sets that the conditions need, train heads under each, and draw the conclusions.

    Nothing is registered: a study's heads are runs of their own experiment and no candidates.

    Args:
        study: `snap`, `tokens`, `precision`, `clips`, `data`, `resolution` or `dims`.
        selection: Which videos.
        set_options: The embedding set that is studied or varied.
        embedding: By which decoder and on which devices videos are embedded.
        options: What is compared, with which heads, and how often each is trained.

    Raises:
        InvalidInputError: No such study or condition, or too little data.
        LocalError: Runs cannot be recorded in MLflow.
    """
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    made = set_options.for_target(options.target).resolved(mini=selection.is_mini)
    plan = make_plan(study, made, options.conditions)
    options.check_for(study)
    check_tracking(experiment_name(dataset.name, options.target))
    jobs = files_here(dataset, settings.ledger_url, made, videos_dir=settings.data_dir / "videos")
    require_splits(dataset, jobs, target=options.target)
    sets = [c.set_options for c in plan.conditions if c.set_options is not None] or [made]
    with tagged():
        for one in sets:
            embed(selection, one, embedding)
    measured = []
    if plan.has_sets and options.timed:
        timed = jobs[: options.timed]
        with progress.stage("time", len(timed) * len(plan.conditions) * (ROUNDS + 1)):
            measured = measure_costs(timed, plan.conditions, dataset.name, options=embedding)
    notes: tuple[str, ...] = ()
    if study == "resolution":
        sides = {video.video_id: video.split for video in dataset.videos}
        tests = [job for job in jobs if sides[job.video_id] == "test"]
        notes = _embed_resolutions(plan, tests, dataset.name, made, options=embedding)
    with progress.stage("fit"):
        report = conduct_study(
            plan,
            selection,
            made,
            target=options.target,
            heads=options.heads,
            seeds=options.seeds_of(study),
            measured=measured,
            wanted_sizes=_wanted_sizes(selection, options.at) if study == "data" else {},
            notes=notes,
        )
    publish_study(report, options.target)
    return completed(report, message=str(report))


def _embed_resolutions(
    plan: StudyPlan,
    jobs: list[EmbedJob],
    dataset: str,
    set_options: SetOptions,
    *,
    options: EmbedOptions,
) -> tuple[str, ...]:
    """Embed the test videos at each resolution.

    Returns:
        A note for each resolution that some of the files do not exceed.
    """
    with progress.stage("re-encode", len(jobs) * len(plan.values)):
        made = [
            embed_reencoded(jobs, int(rows), dataset, set_options, options=options)
            for rows in plan.values
        ]
    return tuple(
        f"{one.no_larger} of {len(jobs)} test videos are no higher than {one.rows} pixels: they "
        "were only compressed again."
        for one in made
        if one.no_larger
    )


def _wanted_sizes(selection: Selection, at: int | None) -> dict[int, str]:
    """The training sizes whose error is predicted, each with its reason."""
    whole = selection.model_copy(update={"limit": None}).load(Settings().data_dir)
    official = sum(video.subset == "training" for video in whole.videos)
    wanted = {official: "the official training side, including val and lost videos"}
    return wanted if at is None else wanted | {at: "as asked for"}
