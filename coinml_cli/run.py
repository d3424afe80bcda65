"""`coinml run` and `reprocess`: the whole way from a list of videos to a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml_cli import options

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml.selection import Selection
    from tasks.summaries import PipelineSummary


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml run --dataset folder:clips --group '^subject[0-9]+'")(run)
    app.command(epilog="Example: coinml reprocess --dataset COIN.json --budget 280 --min-new 500")(
        reprocess
    )


def run(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    source: options.Source = None,
    budget: options.Budget = None,
    batch_size: options.BatchSize = 20,
    max_wait: options.MaxWait = 60,
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
    seed: options.Seed = 0,
    drop_leaks: options.DropLeaks = False,
    encoder_ref: options.ByReference = False,
    json: options.Json = False,
) -> None:
    """Collect, embed, train, compare, promote and predict; what is done is not done again."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    sought = options.target(target)
    made = options.set_options(
        encoder, revision, clips, stride, snap, keep_tokens, keep_seed, extent, sought
    )
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.pipeline import pipeline

        summary = pipeline(
            chosen,
            source=source,
            budget=budget,
            batch_size=batch_size,
            max_wait_s=max_wait,
            set_options=made,
            decoder=decoder,
            target=sought,
            seed=seed,
            by_reference=encoder_ref,
            drop_leaks=drop_leaks,
        )
        prediction = _prediction(summary, chosen, settings)
    if json:
        print_json(summary.as_dict() | {"prediction": prediction})
    else:
        _print(summary, prediction, settings)
    raise typer.Exit(0 if summary.complete else 3)


def reprocess(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    source: options.Source = None,
    budget: options.Budget = None,
    batch_size: options.BatchSize = 20,
    max_wait: options.MaxWait = 60,
    max_height: options.MaxHeight = 360,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file, whatever its time of change says.")
    ] = False,
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
    heads: options.Heads = "mlp,svm",
    min_new: Annotated[
        int, typer.Option(min=1, help="Train again when the set has so many videos more.")
    ] = 50,
    seed: options.Seed = 0,
    drop_leaks: options.DropLeaks = False,
    encoder_ref: options.ByReference = False,
    json: options.Json = False,
) -> None:
    """Get what is due, notice files that changed, embed what lacks, retrain on growth."""
    from coinml.runtime.settings import Settings
    from coinml_cli import printing
    from coinml_cli.console import line, print_json
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    sought = options.target(target)
    made = options.set_options(
        encoder, revision, clips, stride, snap, keep_tokens, keep_seed, extent, sought
    )
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.reprocess import reprocess as flow

        summary = flow(
            chosen,
            source=source,
            budget=budget,
            batch_size=batch_size,
            max_wait_s=max_wait,
            max_height=max_height,
            deep=deep,
            set_options=made,
            decoder=decoder,
            heads=options.listed(heads),
            target=sought,
            min_new=min_new,
            seed=seed,
            by_reference=encoder_ref,
            drop_leaks=drop_leaks,
        )
    if json:
        print_json(summary.as_dict())
    else:
        line(str(summary))
        if summary.trained is not None:
            printing.print_heads(summary.trained)
            printing.print_verdicts(summary.verdicts)
    raise typer.Exit(0 if summary.complete else 3)


def _prediction(
    summary: PipelineSummary, selection: Selection, settings: Settings
) -> dict[str, Any]:
    """Let the champion, or who comes nearest to one, classify the first test video here."""
    from coinml.data.targets import examples
    from coinml.ledger import DOWNLOADED, Ledger
    from coinml.registry.predict import answering_alias, predict_files
    from coinml.registry.versions import model_uri
    from coinml.tracking.mlflow_store import MlflowStore

    store = MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    model = summary.trained.heads[0].model
    alias = answering_alias(store, model)
    videos = selection.load(settings.data_dir).videos
    with Ledger(settings.ledger_url) as ledger:
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
    from coinml_cli import printing
    from coinml_cli.console import command, heading, line

    dataset, model = summary.collected.dataset, summary.trained.heads[0].model
    heading("Collected")
    printing.print_status(settings, dataset, classes=False)
    heading("Embedded")
    printing.print_embedded(summary.embedded)
    heading("Trained")
    printing.print_heads(summary.trained)
    heading("Champion")
    printing.print_verdicts(summary.verdicts)
    heading("Prediction")
    where = f"{prediction['video']}, a test video,"
    if prediction["end_s"] is not None:
        where += f" from {prediction['start_s']:g} to {prediction['end_s']:g} s"
    line(f"{where} is in truth {prediction['truth']}")
    if prediction["error"]:
        line(f"the {prediction['alias']} cannot say: {prediction['error']}")
    else:
        line(f"the {prediction['alias']} says {prediction['label']} with {prediction['score']:.2f}")
    heading("Where to look next")
    coinml = command("coinml")
    for call, what in (
        (f"{coinml} status --dataset {dataset}", "what became of each video"),
        (f"{coinml} registry", f"the versions of {model}, and why"),
        (f"{coinml} predict FILE --dataset {dataset}", "the champion on a file of yours"),
        (f"{coinml} similar FILE --dataset {dataset}", "what looks most like it"),
        (
            f"{coinml} up",
            "curves, confusion matrices and tables of each run in the browser",
        ),
    ):
        line(f"  {call}")
        line(f"      {what}")
