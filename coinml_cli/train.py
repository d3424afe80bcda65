"""`coinml train`, `compare`, `promote`, `registry` and `predict`: heads and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml.tracking.mlflow_store import MlflowStore


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml train --dataset mini --heads mlp")(train)
    app.command(epilog="Example: coinml compare RUN_ID RUN_ID --split val")(compare)
    app.command(epilog="Example: coinml promote --dataset coin --version 7")(promote)
    app.command(epilog="Example: coinml registry --dataset mini")(registry)
    app.command(epilog="Example: coinml predict holiday.mp4 --dataset coin --json")(predict)


def train(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    heads: options.Heads = "mlp,svm",
    sweep: options.Sweep = 0,
    encoder: options.Encoder = None,
    revision: options.Revision = None,
    clips: options.Clips = 8,
    stride: options.Stride = 4,
    snap: options.Snap = "exact",
    keep_tokens: options.KeepTokens = 1.0,
    keep_seed: options.KeepSeed = 0,
    extent: options.Extent = None,
    target: options.Target = "task",
    seed: options.Seed = 0,
    drop_leaks: options.DropLeaks = False,
    encoder_ref: options.ByReference = False,
    json: options.Json = False,
) -> None:
    """Train heads on what is embedded; each is a run in MLflow and a registered version."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.printing import print_heads
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    sought = options.target(target)
    made = options.set_options(
        encoder, revision, clips, stride, snap, keep_tokens, keep_seed, extent, sought
    )
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.train import train as flow

        summary = flow(
            chosen,
            heads=options.listed(heads),
            set_options=made,
            target=sought,
            seed=seed,
            by_reference=encoder_ref,
            drop_leaks=drop_leaks,
            sweep=sweep,
        )
    if json:
        print_json(summary.as_dict())
    else:
        print_heads(summary)


def compare(
    run_a: Annotated[str, typer.Argument(help="An MLflow run id.")],
    run_b: Annotated[str, typer.Argument(help="Another.")],
    split: Annotated[str, typer.Option(help="`val` or `test`.")] = "test",
    record: Annotated[
        bool, typer.Option("--record", help="Write it down in the second run, with figures.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Compare two runs on the videos that both were measured on, with a paired test."""
    from coinml.ledger import Ledger
    from coinml.runtime.settings import Settings
    from coinml.tracking.compare_runs import compare_runs
    from coinml_cli.console import print_json
    from coinml_cli.printing import print_comparison

    settings = Settings()
    with Ledger(settings.ledger_url) as ledger:
        found = compare_runs(
            _store(settings), run_a, run_b, split=split, ledger=ledger, record=record
        )
    if json:
        print_json(found.as_dict())
    else:
        print_comparison(found)


def promote(
    dataset: options.Known = None,
    target: options.Target = "task",
    version: Annotated[
        list[int] | None, typer.Option(min=1, help="A candidate; by default the challenger.")
    ] = None,
    coverage_floor: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the official test videos it needs.")
    ] = 0.5,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the previous champion the champion again.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Send versions through the gate: the champion is whom val shows to be better."""
    from coinml.registry import promotion
    from coinml.runtime.settings import Settings
    from coinml.training.train_head import model_name
    from coinml_cli.console import print_json
    from coinml_cli.printing import known_dataset, print_verdicts
    from coinml_cli.session import flow_session

    settings = Settings()
    model = model_name(known_dataset(settings, dataset), options.target(target))
    if rollback:
        verdicts = [promotion.rollback(_store(settings), model)]
    else:
        with flow_session(settings):
            from flows.promote import promote as flow

            verdicts = flow(model, versions=version, coverage_floor=coverage_floor)
    if json:
        print_json([verdict.as_dict() for verdict in verdicts])
    else:
        print_verdicts(verdicts)


def registry(
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's models.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Only models of `task`, `domain` or `step`.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show who is champion, challenger and previous, and why."""
    from coinml.data.targets import TARGETS
    from coinml.registry.versions import list_versions
    from coinml.runtime.settings import Settings
    from coinml.training.train_head import model_name
    from coinml_cli.console import print_json, table

    sought = (options.target(target),) if target else TARGETS
    versions = list_versions(_store(Settings()))
    if dataset is not None:
        models = {model_name(dataset, one) for one in sought}
        versions = [row for row in versions if row["model"] in models]
    elif target is not None:
        versions = [row for row in versions if row["tags"].get("target", "task") in sought]
    if json:
        print_json(versions)
        return
    table(
        ["model", "version", "who", "head", "val", "test", "coverage", "the gate said"],
        [
            [
                row["model"],
                row["version"],
                ", ".join(row["aliases"]),
                *(row["tags"].get(key, "") for key in ("head", "val_accuracy", "test_accuracy")),
                row["tags"].get("test_coverage", ""),
                row["tags"].get("gate_reason", "not asked yet"),
            ]
            for row in versions
        ],
    )


def predict(
    files: Annotated[list[Path], typer.Argument(help="Video files.")],
    dataset: options.Known = None,
    target: options.Target = "task",
    model: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Such as `models:/mini-task/3`; by default the champion."),
    ] = None,
    start: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Look from this second on.")
    ] = None,
    end: Annotated[
        float | None, typer.Option(min=0, metavar="S", help="Look up to this second.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Classify video files with the champion; a broken file gets its reason, not an answer."""
    from coinml.registry.predict import answering_alias, predict_files
    from coinml.registry.versions import CHAMPION, model_uri
    from coinml.runtime import progress
    from coinml.runtime.settings import Settings
    from coinml.training.train_head import model_name
    from coinml_cli.console import note, print_json, table
    from coinml_cli.printing import known_dataset
    from coinml_cli.session import watched
    from coinml_ops.environment import log_to

    settings = Settings()
    log_to(settings.logs_dir)
    store = _store(settings)
    if model is None:
        name = model_name(known_dataset(settings, dataset), options.target(target))
        alias = answering_alias(store, name)
        model = model_uri(name, alias)
        if alias != CHAMPION:
            note(f"{name} has no champion yet; its {alias} answers (`coinml registry` says why)")
    with watched(), progress.stage("predict", len(files)):
        answers = predict_files(
            store,
            model,
            [str(file) for file in files],
            span=(start, end),
            progress=lambda count: progress.advance("predict", count),
        )
    if json:
        print_json(answers)
    else:
        table(
            ["video", "label", "score", "next best", "error"],
            [
                [
                    answer["video"],
                    answer["label"] or "",
                    "" if answer["error"] else f"{answer['score']:.3f}",
                    ", ".join(f"{top['label']} {top['score']:.2f}" for top in answer["top5"][1:3]),
                    answer["error"] or "",
                ]
                for answer in answers
            ],
        )


def _store(settings: Settings) -> MlflowStore:
    from coinml.tracking.mlflow_store import MlflowStore

    return MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
