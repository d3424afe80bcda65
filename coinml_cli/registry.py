"""`coinml promote`, `registry` and `registry export`: the versions of registered models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_cli.options import Json, Known, ModelUri, Target, known_dataset

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml.tracking.mlflow_store import MlflowStore


registry = typer.Typer(
    name="registry",
    invoke_without_command=True,
    epilog="Example: coinml registry --dataset mini",
)


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml promote --dataset coin --version 7")(promote)
    app.add_typer(registry)


def promote(
    dataset: Known = None,
    target: Target = "task",
    version: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="A candidate version, may be repeated; by default the challenger."
        ),
    ] = None,
    coverage_floor: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of the official test videos that a candidate needs."
        ),
    ] = 0.5,
    replace_lost: Annotated[
        bool,
        typer.Option(
            "--replace-lost",
            help="Replace a champion whose predictions are gone from MLflow, so that nothing can "
            "be compared with it, by the rule for a first champion.",
        ),
    ] = False,
    because: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Make the one --version the champion by your own decision, for this reason; the "
            "gate is not asked. Your user name, the time and the reason are recorded.",
        ),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the previous champion the champion again.")
    ] = False,
    json: Json = False,
) -> None:
    """Send versions through the gate; one that is better on val becomes the champion."""
    from coinml.errors import InvalidInputError
    from coinml.registry import promotion
    from coinml.registry.decision import checked_decision
    from coinml.registry.versions import version_numbered
    from coinml.training.train_head import model_name
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session
    from coinml_cli.result_tables import print_verdicts

    if because is not None:
        if rollback:
            raise InvalidInputError("--because and --rollback: give one of them")
        checked_decision(version, because, replace_lost=replace_lost)
    settings = options.home_in_place()
    model = model_name(known_dataset(settings, dataset), options.target(target))
    if rollback:
        verdicts = [promotion.rollback(_store(settings), model)]
    else:
        # A version that is not there is refused before a server is started.
        for number in version or ():
            version_numbered(_store(settings), model, number)
        with flow_session(settings):
            from flows.promote import promote as flow

            verdicts = flow(
                model,
                versions=version,
                coverage_floor=coverage_floor,
                replace_lost=replace_lost,
                because=because,
            )
    if json:
        print_json([verdict.as_dict() for verdict in verdicts])
    else:
        print_verdicts(verdicts)


@registry.callback()
def main(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's models.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Only models of `task`, `domain` or `step`.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the versions with their aliases, and the gate's reasons; or export one."""
    if context.invoked_subcommand is None:
        _list(dataset, target, json=json)
    elif dataset is not None or target is not None or json:
        name = context.invoked_subcommand
        raise typer.BadParameter(f"options go after the command: coinml registry {name} …")


@registry.command(epilog="Example: coinml registry export champion --dataset coin")
def export(
    folder: Annotated[Path, typer.Argument(help="The folder to write; it must not exist.")],
    dataset: Known = None,
    target: Target = "task",
    model: ModelUri = None,
) -> None:
    """Write a version with its encoder to a folder, which loads without the tracking server."""
    from coinml.registry.export import export_model
    from coinml.registry.predict import answering_alias
    from coinml.registry.versions import model_uri
    from coinml.runtime.out_files import check_out_folder
    from coinml.training.train_head import model_name
    from coinml_cli.console import line

    check_out_folder(folder, new=True)
    settings = options.home_in_place()
    store = _store(settings)
    if model is None:
        name = model_name(known_dataset(settings, dataset), options.target(target))
        model = model_uri(name, answering_alias(store, name))
    size_bytes = export_model(store, model, folder)
    line(f"{model}: {size_bytes / 1e6:,.1f} MB in {folder}")


def _list(dataset: str | None, target: str | None, *, json: bool) -> None:
    from coinml.data.targets import TARGETS
    from coinml.registry.versions import list_versions
    from coinml.training.train_head import model_name
    from coinml_cli.console import print_json, table

    sought = (options.target(target),) if target else TARGETS
    store = _store(options.home_in_place())
    versions = list_versions(store)
    if dataset is not None:
        models = {model_name(dataset, one) for one in sought}
        versions = [row for row in versions if row["model"] in models]
    elif target is not None:
        versions = [row for row in versions if row["model"].rpartition("-")[2] in sought]
    if json:
        print_json(versions)
        return
    table(
        ["model", "version", "alias", "head", "val", "test", "coverage", "gate"],
        [
            [
                row["model"],
                row["version"],
                ", ".join(row["aliases"]),
                *(row["tags"].get(key, "") for key in ("head", "val_accuracy", "test_accuracy")),
                row["tags"].get("test_coverage") or _coverage_of_run(store, row["run_id"]),
                row["tags"].get("gate_reason", "not asked yet"),
            ]
            for row in versions
        ],
    )


def _coverage_of_run(store: MlflowStore, run_id: str) -> str:
    """Of a version that a person decided for; "" if there is no such run."""
    from coinml.errors import InvalidInputError

    try:
        return str(store.read_run(run_id).data.tags.get("coverage", ""))
    except InvalidInputError:
        return ""


def _store(settings: Settings) -> MlflowStore:
    from coinml.tracking.mlflow_store import home_store

    return home_store(settings)
