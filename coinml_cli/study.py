"""`coinml study`: claims about data, clips, tokens and pictures, tested on what is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options

if TYPE_CHECKING:
    from coinml.studies.report import StudyReport


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml study data --dataset mini --heads mlp,svm")(study)


def study(
    name_: Annotated[
        str,
        typer.Argument(
            metavar="STUDY", help="`data`, `resolution`, `clips`, `tokens`, `snap` or `dims`."
        ),
    ],
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="What to compare: per cent of the training videos (`data`), rows of the picture "
            "(`resolution`), parts of the tokens (`tokens`), numbers (`clips`, `dims`).",
        ),
    ] = None,
    heads: options.Heads = "svm",
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainings of each head that draws random numbers (3; `data`: 5, of all)."
        ),
    ] = None,
    encoder: options.Encoder = None,
    revision: options.Revision = None,
    clips: options.Clips = 8,
    stride: options.Stride = 4,
    snap: options.Snap = "exact",
    keep_tokens: options.KeepTokens = 1.0,
    keep_seed: options.KeepSeed = 0,
    extent: options.Extent = None,
    target: options.Target = "task",
    decoder: options.Decoder = "auto",
    timed: Annotated[
        int,
        typer.Option(min=0, help="Videos on which the embedding's cost is measured; 0: none."),
    ] = 16,
    at: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="`data`: predict the error at N training videos."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Test a claim on the videos that are here: a run in MLflow, a figure, and a sentence."""
    from coinml.heads.kinds import check_heads
    from coinml.runtime.settings import Settings
    from coinml.studies.plans import check_target, make_plan
    from coinml_cli.console import print_json
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    sought = options.target(target)
    made = options.set_options(
        encoder, revision, clips, stride, snap, keep_tokens, keep_seed, extent, sought
    )
    # What is wrong is said before a server is started for it.
    make_plan(name_, made, options.listed(conditions))
    check_target(sought)
    check_heads(options.listed(heads))
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.study import study as flow

        report = flow(
            name_,
            chosen,
            conditions=options.listed(conditions),
            target=sought,
            heads=options.listed(heads),
            seeds=seeds,
            set_options=made,
            decoder=decoder,
            timed=timed,
            at=at,
        )
    if json:
        print_json(report.as_dict())
    else:
        _print(report)


def _print(report: StudyReport) -> None:
    from coinml.studies.report import cells
    from coinml_cli.console import heading, line, table

    heading(report.question)
    columns, rows = cells(report)
    table(columns, rows)
    for sentence in report.conclusions:
        line(sentence)
    for note in report.notes:
        line(note)
    line(
        f"95 % intervals over {report.test_videos} test videos; the sentences speak of "
        f"{report.head}, val's choice; run {report.run_id} in {report.experiment} of MLflow "
        "has the figure"
    )
