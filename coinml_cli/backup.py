"""`coinml backup` and `coinml restore`: copies of a home, and the way back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_ops.environment import FROM_STACK

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings

Place = Annotated[
    str, typer.Argument(metavar="DIR|URL", help="Folder or fsspec URL (s3://…) of the copies.")
]


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml backup /mnt/other-disk/coinml --keep 30")(backup)
    app.command(epilog="Example: coinml restore /mnt/other-disk/coinml --only ledger")(restore)


def backup(
    place: Place,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Leave out `videos` or another part (the parts are in docs/keeping-a-home.md); "
            "may be repeated.",
        ),
    ] = None,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but this many copies; else all stay.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read the whole copy again and compare its digests.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Copy this home, also while it is in use; what earlier copies have is not written again."""
    from dataclasses import asdict

    from coinml.runtime import progress
    from coinml_cli.console import line, note, print_json
    from coinml_cli.flow_session import watched
    from coinml_ops.upkeep.backup import back_up, check_copy
    from coinml_ops.upkeep.chunk_store import ChunkStore

    settings = _own_settings()
    with watched():
        with progress.stage("copy"):
            report = back_up(
                settings,
                place,
                without=without or (),
                keep=keep,
                on_file=lambda _: progress.advance("copy"),
            )
        if check:
            with progress.stage("check"):
                check_copy(ChunkStore(place), report.snapshot)
    for text in report.left_out:
        note(f"not in the copy: {text}")
    if json:
        print_json(asdict(report))
        return
    line(
        f"{report.snapshot}: {sum(report.files.values()):,} files of "
        f"{report.size_bytes / 1e6:,.1f} MB, {report.written_bytes / 1e6:,.1f} MB of it new"
        + (f"; {len(report.removed)} older removed" if report.removed else "")
        + ("; read back and whole" if check else "")
    )
    line("it contains this home's passwords: let nobody else read it")


def restore(
    place: Place,
    snapshot: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which copy; by default the latest.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Bring back `ledger`, `mlflow`, `prefect`, `artifacts`, `embeddings`, `videos` or "
            "`settings` alone, also into a home that exists; what is there is renamed. May be "
            "repeated.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the copies, and do nothing.")] = False,
    json: options.Json = False,
) -> None:
    """Bring back this home, or parts of it, from a copy."""
    from dataclasses import asdict

    from coinml.runtime import progress
    from coinml_cli.console import line, note, print_json
    from coinml_cli.flow_session import watched
    from coinml_ops.upkeep.chunk_store import ChunkStore
    from coinml_ops.upkeep.restore import restore as bring_back
    from coinml_ops.upkeep.unused_home import check_unused, take_over_record

    if list_:
        names = ChunkStore(place).snapshot_names()
        if json:
            print_json(names)
        else:
            for name in names:
                line(name)
        return
    settings = _own_settings()
    check_unused(settings)
    with watched(), progress.stage("restore"):
        report = bring_back(
            settings,
            place,
            snapshot=snapshot,
            only=only or (),
            on_file=lambda _: progress.advance("restore"),
        )
    take_over_record(settings)
    for path in report.set_aside:
        note(f"set aside: {path}")
    if json:
        print_json(asdict(report))
        return
    line(
        f"{settings.home} is as in the copy {report.snapshot}: {report.written:,} of "
        f"{sum(report.files.values()):,} files were written, {report.written_bytes / 1e6:,.1f} MB"
    )
    if report.moved_from:
        line(f"paths below {report.moved_from} were changed to this home's in its databases")


def _own_settings() -> Settings:
    """The home's settings, with its own files in place of the addresses of its `coinml up`."""
    from coinml.runtime.settings import Settings

    if "MLFLOW_TRACKING_URI" in FROM_STACK:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return Settings()
