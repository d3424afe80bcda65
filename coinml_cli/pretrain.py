"""`coinml pretrain`: adapt an encoder to the collected training videos, without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from coinml_cli.model_options import add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.pretraining.options import PretrainOptions
    from coinml.pretraining.pretrain_report import PretrainReport
    from coinml.selection import Selection

_SHOWN_FAILURES = 5


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app, pretrain, epilog="Example: coinml pretrain --dataset COIN.json --mask-ratio 0.9"
    )


def pretrain(selection: Selection, options: PretrainOptions, json: Json = False) -> None:
    """Pre-train a VideoMAE on the downloaded training videos; continues where it was stopped."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session, load_shown

    settings = Settings()
    with flow_session(settings):
        load_shown(selection, settings)
        from flows.pretrain import pretrain as flow

        report = flow(selection, options)
    if json:
        print_json(report.as_dict())
    else:
        _print(report)


def _print(report: PretrainReport) -> None:
    from coinml_cli.console import line

    line(str(report))
    for video_id, reason in list(report.failed.items())[:_SHOWN_FAILURES]:
        line(f"  {video_id}: {reason}")
    if len(report.failed) > _SHOWN_FAILURES:
        line(f"  and {len(report.failed) - _SHOWN_FAILURES} more (training.json of the checkpoint)")
    line(f"embed with it: coinml embed --encoder {report.checkpoint}")
    if report.run_id:
        line(f"curves and pictures are in run {report.run_id} of MLflow")
