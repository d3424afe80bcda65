"""`coinml run`: the whole way from a list of videos to a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.collection.options import CollectOptions
    from coinml.embedding.options import EmbedOptions
    from coinml.embedding_sets.options import SetOptions
    from coinml.runtime.settings import Settings
    from coinml.selection import Selection
    from coinml.training.options import TrainOptions
    from tasks.summaries import PipelineSummary


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app, run, epilog="Example: coinml run --dataset folder:clips --group '^subject[0-9]+'"
    )


def run(
    selection: Selection,
    collection: Annotated[CollectOptions, Only("source", "budget", "batch_size", "max_wait_s")],
    set_options: SetOptions,
    embedding: Annotated[EmbedOptions, Only("decoder", "kernel")],
    training: Annotated[
        TrainOptions, Only("head_options", "target", "cv", "seed", "drop_leaks", "by_reference")
    ],
    json: Json = False,
) -> None:
    """Collect, embed, train, compare, promote and predict; steps done before are not repeated."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session, load_shown

    settings = Settings()
    # Contradictory options are refused before a server is started.
    set_options = set_options.for_target(training.target_for(set_options))
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.pipeline import pipeline

        summary = pipeline(selection, collection, set_options, embedding, training)
        prediction = _prediction(summary, selection, settings)
    if json:
        print_json(summary.as_dict() | {"prediction": prediction})
    else:
        _print(summary, prediction, settings)
    raise typer.Exit(0 if summary.complete else 3)


def _prediction(
    summary: PipelineSummary, selection: Selection, settings: Settings
) -> dict[str, Any]:
    """Classify the first downloaded test video with the champion, or else the challenger."""
    from coinml.data.targets import examples
    from coinml.ledger import DOWNLOADED, Ledger
    from coinml.registry.predict import answering_alias, predict_files
    from coinml.registry.versions import model_uri
    from coinml.tracking.mlflow_store import home_store

    store = home_store(settings)
    model = summary.trained.heads[0].model
    alias = answering_alias(store, model)
    videos = selection.load(settings.data_dir).videos
    with Ledger.of(settings) as ledger:
        rows = ledger.rows(summary.collected.dataset, state=DOWNLOADED)
    paths = {row.video_id: str(row.path) for row in rows}
    example = next(
        one
        for one in sorted(
            examples(videos, target=summary.trained.target), key=lambda one: one.video_id
        )
        if one.split == "test" and one.video_id in paths
    )
    (answer,) = predict_files(
        store, model_uri(model, alias), [paths[example.video_id]], span=example.span
    )
    start_s, end_s = example.span
    return answer | {
        "truth": example.label,
        "alias": alias,
        "start_s": start_s,
        "end_s": end_s,
    }


def _print(summary: PipelineSummary, prediction: dict[str, Any], settings: Settings) -> None:
    from coinml_cli.console import command, heading, line
    from coinml_cli.result_tables import print_embedded, print_heads, print_verdicts
    from coinml_cli.status import print_status

    dataset, model = summary.collected.dataset, summary.trained.heads[0].model
    heading("Collected")
    print_status(settings, dataset, classes=False)
    heading("Embedded")
    print_embedded(summary.embedded)
    heading("Trained")
    print_heads(summary.trained)
    heading("Champion")
    print_verdicts(summary.verdicts)
    heading("Prediction")
    where = f"{prediction['video']}, a test video,"
    if prediction["end_s"] is not None:
        where += f" from {prediction['start_s']:g} to {prediction['end_s']:g} s"
    line(f"{where} is labelled {prediction['truth']}")
    if prediction["error"]:
        line(f"the {prediction['alias']} cannot classify it: {prediction['error']}")
    else:
        label, score = prediction["label"], prediction["score"]
        line(f"the {prediction['alias']} predicts {label} with {score:.2f}")
    heading("Where to look next")
    coinml = command("coinml")
    for call, what in (
        (f"{coinml} status --dataset {dataset}", "videos by state"),
        (f"{coinml} registry", f"the versions of {model} and the gate's reasons"),
        (f"{coinml} predict FILE --dataset {dataset}", "classify a file of your own"),
        (f"{coinml} similar FILE --dataset {dataset}", "the videos that look most like it"),
        (
            f"{coinml} up",
            "curves, confusion matrices and tables of each run in the browser",
        ),
    ):
        line(f"  {call}")
        line(f"      {what}")
