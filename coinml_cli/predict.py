"""`coinml predict`: classify video files with a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml_cli import options
from coinml_cli.options import Force, Json, Known, ModelUri, Target, known_dataset

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml.tracking.mlflow_store import MlflowStore

_SHOWN_FAILURES = 5


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml predict holiday.mp4 --dataset coin --json")(predict)


def predict(
    files: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    dataset: Known = None,
    target: Target = "task",
    model: ModelUri = None,
    start: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Start of the classified part, in seconds."),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="End of the classified part, in seconds."),
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="PART",
            help="Accept only answers with a score from which val shows this precision.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the answers to a `.csv` or `.parquet` file."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Classify video files with the champion; a broken file gets an error instead."""
    from coinml.registry.abstention import abstention_threshold
    from coinml.registry.answer_file import check_answer_file, named_videos, write_answers
    from coinml.registry.predict import predict_files
    from coinml.runtime import progress
    from coinml.tracking.mlflow_store import home_store
    from coinml_cli.console import note, print_json
    from coinml_cli.flow_session import watched
    from coinml_ops.environment import log_to

    settings = options.home_in_place()
    log_to(settings.logs_dir)
    if out is not None:
        check_answer_file(out, replace=force)
    videos, notes = named_videos(files)
    for text in notes:
        note(text)
    store = home_store(settings)
    uri = model or _model_of(settings, store, dataset, target)
    threshold = abstention_threshold(store, uri, precision) if precision is not None else None
    if threshold is not None:
        note(f"{uri}: {threshold}")
    with watched(), progress.stage("predict", len(videos)):
        answers = predict_files(
            store,
            uri,
            videos,
            span=(start, end),
            threshold=threshold,
            progress=lambda count: progress.advance("predict", count),
        )
    if out is not None:
        write_answers(answers, out, replace=force)
    if json:
        print_json(answers)
    elif out is not None:
        _print_counts(answers, out)
    else:
        _print_answers(answers)


def _model_of(settings: Settings, store: MlflowStore, dataset: str | None, target: str) -> str:
    """The model that answers for a dataset."""
    from coinml.registry.predict import answering_alias
    from coinml.registry.versions import CHAMPION, model_uri
    from coinml.training.train_head import model_name
    from coinml_cli.console import note

    name = model_name(known_dataset(settings, dataset), options.target(target))
    alias = answering_alias(store, name)
    if alias != CHAMPION:
        note(f"{name} has no champion yet; its {alias} answers (`coinml registry` says why)")
    return model_uri(name, alias)


def _print_answers(answers: list[dict[str, Any]]) -> None:
    from coinml_cli.console import table

    abstains = any("accepted" in answer for answer in answers)
    table(
        ["video", "label", "score", *["accepted"] * abstains, "next best", "error"],
        [
            [
                answer["video"],
                answer["label"] or "",
                "" if answer["error"] else f"{answer['score']:.3f}",
                *["yes" if answer.get("accepted") else "no"] * abstains,
                ", ".join(f"{top['label']} {top['score']:.2f}" for top in answer["top5"][1:3]),
                answer["error"] or "",
            ]
            for answer in answers
        ],
    )


def _print_counts(answers: list[dict[str, Any]], out: Path) -> None:
    """Print what the file has, and the first files that failed."""
    from coinml_cli.console import line

    failed = [answer for answer in answers if answer["error"]]
    abstained = sum(answer.get("accepted") is False for answer in answers) - len(failed)
    said = f"{len(answers) - len(failed):,} of {len(answers):,} videos classified"
    if any("accepted" in answer for answer in answers):
        said += f", {abstained:,} of them not accepted"
    line(f"{out}: {said}")
    for answer in failed[:_SHOWN_FAILURES]:
        line(f"  {answer['video']}: {answer['error']}")
    if len(failed) > _SHOWN_FAILURES:
        line(f"  and {len(failed) - _SHOWN_FAILURES:,} more (column error)")
