"""`coinml audit`: doubtful labels, outliers, near-duplicates and stills of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_cli.model_options import add_command

if TYPE_CHECKING:
    from coinml.audit import Audit
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection

_SHOWN = 20


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(app, audit, epilog="Example: coinml audit --dataset mini --propose proposed.csv")


def audit(
    selection: Selection,
    set_options: SetOptions,
    target: options.Target = "task",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds.")] = 0,
    propose: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the suspects of train and val as corrections to check."
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Look for doubtful labels, outliers, near-duplicates and stills; changes no label."""
    from coinml.audit import audit_set
    from coinml.audit.proposals import check_proposals, write_proposals
    from coinml.data.corrections import corrections_beside, read_corrections
    from coinml.data.names import listed
    from coinml.embedding_sets import EmbeddingSet
    from coinml.embedding_sets.quantized_file import find_spec
    from coinml.ledger import Ledger
    from coinml.runtime import progress
    from coinml.tracking.mlflow_store import home_store
    from coinml_cli.console import note, print_json
    from coinml_cli.flow_session import load_shown, watched
    from coinml_ops.environment import log_to

    settings = options.home_in_place()
    log_to(settings.logs_dir)
    if propose is not None:
        check_proposals(propose, replace=force)
    wanted = options.target(target)
    made = set_options.for_target(wanted).resolved(mini=selection.is_mini)
    with watched(), Ledger.of(settings) as ledger:
        dataset = load_shown(selection, settings)
        root = settings.embeddings_root
        embedding_set = EmbeddingSet.open(root, dataset.name, find_spec(root, dataset.name, made))
        with progress.stage("look"):
            found, run_id = audit_set(
                dataset,
                embedding_set,
                ledger,
                home_store(settings),
                target=wanted,
                seed=seed,
                tick=lambda: progress.advance("look"),
            )
    for text in found.notes:
        note(text)
    if propose is not None:
        beside = corrections_beside(Path(dataset.origin))
        decided = {one.video_id for one in read_corrections(beside)} if beside.is_file() else set()
        write_proposals(found, propose, decided, replace=force)
        if again := sorted(decided & set(found.suspects["video_id"])):
            note(f"{beside}: doubtful as well, and not among the proposals: {listed(again)}")
    if json:
        tables = {name: rows.to_dict(orient="records") for name, rows in found.tables.items()}
        print_json({"run_id": run_id, "videos": found.videos, **tables})
    else:
        _print(found, run_id, propose)


def _print(found: Audit, run_id: str, propose: Path | None) -> None:
    from coinml_cli.console import heading, line, table

    means = {
        "suspects": "labels that are probably wrong, the most doubtful first",
        "outliers": "videos that look like no other",
        "duplicates": "videos that are the same file or look the same",
        "stills": "videos in which nothing moves or is seen",
    }
    for name, rows in found.tables.items():
        heading(f"{means[name]}: {len(rows):,} of {found.videos:,}")
        if len(rows):
            cells = rows.head(_SHOWN).itertuples(index=False, name=None)
            shown = [[f"{c:.4f}" if isinstance(c, float) else c for c in row] for row in cells]
            table(list(rows.columns), shown)
        if len(rows) > _SHOWN:
            line(f"and {len(rows) - _SHOWN:,} more (tables/{name}.csv of the run)")
    line(f"tables and pictures are in run {run_id}, and in `coinml report`")
    if propose is not None:
        line(
            f"{propose}: check each line, and keep those that are right as corrections.csv beside "
            "the annotations; labels of test videos are not among them"
        )
