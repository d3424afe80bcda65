"""`coinml embeddings`: list, show, verify, compact and export embedding sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml_cli import options

if TYPE_CHECKING:
    from coinml.embedding_sets import EmbeddingSet
    from coinml.embedding_sets.listing import SetSummary

OfDataset = Annotated[str | None, typer.Option("--dataset", help="Only this dataset's sets.")]
Fingerprint = Annotated[
    str | None,
    typer.Argument(
        metavar="[FINGERPRINT]",
        help="The set's fingerprint or its first digits; not needed if there is only one.",
        show_default=False,
    ),
]

embeddings = typer.Typer(
    name="embeddings",
    invoke_without_command=True,
    epilog="Example: coinml embeddings --dataset mini",
)


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(embeddings)


@embeddings.callback()
def main(context: typer.Context, dataset: OfDataset = None, json: options.Json = False) -> None:
    """List the embedding sets, show one, verify, compact or export it."""
    if context.invoked_subcommand is None:
        list_(dataset=dataset, json=json)
    elif dataset is not None or json:
        name = context.invoked_subcommand
        raise typer.BadParameter(f"options go after the command: coinml embeddings {name} …")


@embeddings.command("list", epilog="Example: coinml embeddings list --dataset mini --json")
def list_(dataset: OfDataset = None, json: options.Json = False) -> None:
    """List the sets: dataset, encoder and sampling, and size."""
    from coinml.embedding_sets import find_sets
    from coinml.embedding_sets.listing import summarise
    from coinml.runtime.settings import Settings
    from coinml_cli.console import note, print_json, table

    sets, problems = find_sets(Settings().embeddings_root, dataset)
    found = [_described(one, summarise(one)) for one in sets]
    if json:
        print_json(found)
    else:
        columns = [
            "dataset",
            "fingerprint",
            "encoder",
            "clips",
            "snap",
            "tokens",
            "extent",
            "videos",
            "rows",
            "parts",
            "MB",
            "newest",
        ]
        table(columns, [_row(one) for one in found])
        for one in found:
            if one["broken"]:
                note(
                    f"{one['fingerprint']}: {one['broken']} parts cannot be read; "
                    f"see coinml embeddings verify {one['fingerprint']}"
                )
    for problem in problems:
        note(f"error: {problem.reason}")
    if problems:
        raise typer.Exit(1)


@embeddings.command(epilog="Example: coinml embeddings show 3f2a --dataset mini")
def show(
    fingerprint: Fingerprint = None, dataset: OfDataset = None, json: options.Json = False
) -> None:
    """Show a set: its full specification, its contents and its parts."""
    from dataclasses import asdict

    from coinml.embedding_sets.listing import summarise
    from coinml_cli.console import heading, line, print_json, table

    chosen = _chosen(dataset, fingerprint)
    summary = summarise(chosen)
    spec = chosen.spec.as_dict()
    if json:
        print_json({"path": chosen.path, "spec": spec, **asdict(summary)})
        return
    encoder = spec.pop("encoder")
    line(chosen.path)
    table(["set", ""], [[key, _plain(value)] for key, value in spec.items()])
    table(["encoder", ""], [[key, _plain(value)] for key, value in encoder.items()])
    counted = {
        key: value for key, value in asdict(summary).items() if key not in ("parts", "broken")
    }
    table(["contents", ""], [[key, _plain(value)] for key, value in counted.items()])
    table(
        ["part", "MB", "rows", "current"],
        [[one.part, _megabytes(one.size_bytes), one.rows, one.current] for one in summary.parts],
    )
    if summary.broken:
        heading("Broken")
        table(["part", "reason"], [[one.part, one.reason] for one in summary.broken])


@embeddings.command(epilog="Example: coinml embeddings verify --dataset mini --set-aside")
def verify(
    fingerprint: Fingerprint = None,
    dataset: OfDataset = None,
    set_aside: Annotated[
        bool,
        typer.Option(
            "--set-aside", help="Rename broken parts, so that `embed` embeds their videos again."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Read a whole set, check its checksums, and list the broken parts."""
    from dataclasses import asdict

    from coinml_cli.console import line, print_json, table

    chosen = _chosen(dataset, fingerprint)
    problems = chosen.verify()
    if set_aside:
        for problem in problems:
            chosen.set_aside(problem.part)
    parts = len(chosen.parts())
    if json:
        print_json(
            {
                "fingerprint": chosen.spec.fingerprint,
                "parts": parts,
                "broken": [asdict(problem) for problem in problems],
                "set_aside": set_aside and bool(problems),
            }
        )
    elif problems:
        table(["broken part", "reason"], [[one.part, one.reason] for one in problems])
        if set_aside:
            line(f"renamed to bad-…; {parts} parts are intact; coinml embed embeds the rest again")
        else:
            line("--set-aside renames them, so that coinml embed embeds their videos again")
    else:
        line(f"{chosen.spec.fingerprint}: {parts} parts, all intact")
    if problems and not set_aside:
        raise typer.Exit(1)


@embeddings.command(epilog="Example: coinml embeddings compact --dataset coin")
def compact(
    fingerprint: Fingerprint = None, dataset: OfDataset = None, json: options.Json = False
) -> None:
    """Merge small parts into large ones, and drop outdated rows."""
    from dataclasses import asdict

    from coinml.embedding_sets.compaction import compact as compact_set
    from coinml_cli.console import line, print_json

    chosen = _chosen(dataset, fingerprint)
    report = compact_set(chosen)
    if json:
        print_json({"fingerprint": chosen.spec.fingerprint, **asdict(report)})
    else:
        line(
            f"{chosen.spec.fingerprint}: {report.parts_before} parts of "
            f"{_megabytes(report.bytes_before)} MB are now {report.parts_after} of "
            f"{_megabytes(report.bytes_after)} MB; {report.rows_dropped} outdated rows were dropped"
        )


@embeddings.command(epilog="Example: coinml embeddings export --dataset mini --format tar")
def export(
    fingerprint: Fingerprint = None,
    dataset: OfDataset = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="`npz`, `csv` or `tar` (webdataset); by default what --out ends in, or `npz`."
        ),
    ] = None,
    level: Annotated[
        str, typer.Option(help="`clips`, or `videos` (the mean over a video's clips).")
    ] = "clips",
    out: Annotated[
        Path | None,
        typer.Option(help="The file; by default DATASET-FINGERPRINT.FORMAT in the working folder."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a set into one file for other programs, with labels where they are known."""
    from dataclasses import asdict

    from coinml.embedding_sets.export import check_export, export_set
    from coinml_cli.console import line, print_json

    if out is not None:
        format = check_export(out, format=format, level=level, replace=force)
    chosen = _chosen(dataset, fingerprint)
    spec = chosen.spec
    path = out or Path(f"{spec.dataset}-{spec.fingerprint}.{format or 'npz'}")
    report = export_set(
        chosen, path, format=format, level=level, labels=_labels(spec.dataset), replace=force
    )
    if json:
        print_json({"fingerprint": spec.fingerprint, **asdict(report)})
    else:
        line(
            f"{report.path}: {report.videos} videos, {report.rows} vectors, "
            f"{_megabytes(report.size_bytes)} MB"
        )


def _chosen(dataset: str | None, fingerprint: str | None) -> EmbeddingSet:
    from coinml.embedding_sets import find_set
    from coinml.runtime.settings import Settings

    return find_set(Settings().embeddings_root, dataset, fingerprint)


def _labels(dataset: str) -> dict[str, str]:
    """Label by video id, from the ledger."""
    from coinml.ledger import Ledger
    from coinml.runtime.settings import Settings

    with Ledger.of(Settings()) as ledger:
        return {row.video_id: row.label for row in ledger.rows(dataset) if row.label is not None}


def _described(one: EmbeddingSet, summary: SetSummary) -> dict[str, Any]:
    spec, encoder = one.spec, one.spec.encoder
    return {
        "dataset": spec.dataset,
        "fingerprint": spec.fingerprint,
        "encoder": encoder.encoder,
        "clips": encoder.clips,
        "frames": encoder.frames,
        "stride": encoder.stride,
        "dim": encoder.dim,
        "snap": spec.snap,
        "keep_tokens": encoder.keep_tokens,
        "extent": spec.extent,
        "videos": summary.videos,
        "rows": summary.clips,
        "parts": len(summary.parts) + len(summary.broken),
        "broken": len(summary.broken),
        "size_bytes": summary.size_bytes,
        "newest": summary.newest,
        "path": one.path,
    }


def _row(one: dict[str, Any]) -> list[object]:
    newest = f"{one['newest']:%Y-%m-%d %H:%M}" if one["newest"] else ""
    return [
        one["dataset"],
        one["fingerprint"],
        one["encoder"],
        f"{one['clips']} x {one['frames']} / {one['stride']}",
        one["snap"],
        f"{one['keep_tokens']:g}",
        one["extent"],
        one["videos"],
        one["rows"],
        one["parts"],
        _megabytes(one["size_bytes"]),
        newest,
    ]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "none"
    return str(value)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f}"
