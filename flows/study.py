"""Flow `study`: test a claim on what videos there are."""

from __future__ import annotations

from prefect import flow

from coinml.data.records import Target
from coinml.embedding_sets.options import USUAL, SetOptions
from coinml.heads.kinds import check_heads
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.studies.condition_data import files_here
from coinml.studies.plans import StudyPlan, check_target, make_plan
from coinml.studies.report import StudyReport
from flows.embed import embed
from tasks.events import ours
from tasks.outcomes import completed
from tasks.study import conduct_study, embed_reencoded, measure_costs, publish_study

SEEDS = {"data": 5}
USUAL_SEEDS = 3
_ROUNDS = 4


@flow(name="study", flow_run_name="study {study} {selection.title}")
def study(
    study: str,
    selection: Selection,
    conditions: tuple[str, ...] = (),
    target: Target = "task",
    heads: tuple[str, ...] = ("svm",),
    seeds: int | None = None,
    set_options: SetOptions = USUAL,
    decoder: str = "auto",
    timed: int = 16,
    at: int | None = None,
) -> StudyReport:
    """Embed what the conditions lack, train heads under each, and say what comes of it.

    Nothing is registered: a study's heads are runs of their own experiment and no candidates.

    Args:
        study: `snap`, `tokens`, `clips`, `data`, `resolution` or `dims`.
        selection: Which videos.
        conditions: What to compare; by default what is usual for the study.
        target: "task" or "domain".
        heads: Of `coinml.heads.kinds.HEADS`.
        seeds: Trainings of each head that draws random numbers; in `data`, of every head.
        set_options: The embedding set that is looked at or varied.
        decoder: `auto`, `decord` or `pyav`.
        timed: Number of videos on which the embedding's cost is measured; 0 leaves it out.
        at: In `data`, one more number of training videos to predict the error of.

    Raises:
        InvalidInputError: No such study, condition or head, or too little data.
    """
    check_heads(heads)
    check_target(target)
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    options = set_options.for_target(target).resolved(mini=selection.is_mini)
    plan = make_plan(study, options, conditions)
    sets = [c.set_options for c in plan.conditions if c.set_options is not None] or [options]
    with ours():
        for one in sets:
            embed(selection, one, decoder=decoder)
    measured = []
    if plan.has_sets and timed:
        jobs = files_here(dataset, settings.ledger_url, options)[:timed]
        with progress.stage("time", len(jobs) * len(plan.conditions) * _ROUNDS):
            measured = measure_costs(jobs, plan.conditions, decoder=decoder)
    notes = _reencode(plan, selection, options, decoder) if study == "resolution" else ()
    with progress.stage("fit"):
        report = conduct_study(
            plan,
            selection,
            options,
            target=target,
            heads=heads,
            seeds=seeds or SEEDS.get(study, USUAL_SEEDS),
            measured=measured,
            wanted_sizes=_wanted_sizes(selection, settings, at) if study == "data" else {},
            notes=notes,
        )
    publish_study(report, target)
    return completed(report, message=str(report))


def _reencode(
    plan: StudyPlan, selection: Selection, options: SetOptions, decoder: str
) -> tuple[str, ...]:
    """Embed the test videos at each resolution; says where theirs is no higher."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    jobs = files_here(dataset, settings.ledger_url, options, split="test")
    with progress.stage("re-encode", len(jobs) * len(plan.values)):
        made = [
            embed_reencoded(jobs, int(rows), dataset.name, options, decoder=decoder)
            for rows in plan.values
        ]
    return tuple(
        f"{one.no_larger} of {len(jobs)} test videos have no more than {one.rows} rows anyway: "
        "they were compressed again and no more."
        for one in made
        if one.no_larger
    )


def _wanted_sizes(selection: Selection, settings: Settings, at: int | None) -> dict[int, str]:
    """The training sizes whose error is to be predicted, and why these."""
    whole = selection.model_copy(update={"limit": None}).load(settings.data_dir)
    official = sum(video.subset == "training" for video in whole.videos)
    wanted = {official: "the official training side, val and what is lost included"}
    return wanted if at is None else wanted | {at: "as asked for"}
