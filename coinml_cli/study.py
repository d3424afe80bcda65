"""`coinml study`: test claims about data, clips, tokens and resolution on the downloaded videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.embedding.options import EmbedOptions
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection
    from coinml.studies.options import StudyOptions
    from coinml.studies.report import StudyReport


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(app, study, epilog="Example: coinml study data --dataset mini --heads mlp,svm")


def study(
    study_name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="`data`, `resolution`, `clips`, `tokens`, `precision`, `snap` or `dims`.",
        ),
    ],
    selection: Selection,
    set_options: SetOptions,
    embedding: Annotated[EmbedOptions, Only("decoder", "kernel")],
    options: StudyOptions,
    json: Json = False,
) -> None:
    """Test a claim on the downloaded videos: a run in MLflow, a figure, and conclusions."""
    from coinml.runtime.settings import Settings
    from coinml.studies.plans import make_plan
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session, load_shown

    settings = Settings()
    # An unknown study or condition is refused before a server is started.
    set_options = set_options.for_target(options.target)
    make_plan(study_name, set_options, options.conditions)
    options.check_for(study_name)
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.study import study as flow

        report = flow(study_name, selection, set_options, embedding, options)
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
        f"95 % intervals over {report.test_videos} test videos; the conclusions are about "
        f"{report.head}, the best head on val; the figure is in run {report.run_id} of MLflow's "
        f"experiment {report.experiment}"
    )
