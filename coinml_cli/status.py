"""`coinml status`: how many videos are downloaded, lost and still possible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml.data.names import listed, same_file
from coinml.runtime.out_files import check_out_file, out_file
from coinml_cli.console import line, print_json, table
from coinml_cli.options import Force, Json, known_dataset

if TYPE_CHECKING:
    from coinml.ledger import Status
    from coinml.runtime.settings import Settings

_FIGURES = (".png", ".svg", ".pdf")


_OF_SCORES = (
    "model",
    "version",
    "source",
    "classified",
    "failed_ever",
    "drift",
    "drift_text",
    "labelled",
    "ended_at",
)
"""What the status has of the last scoring."""


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml status --dataset coin --json")(status)


def status(
    dataset: Annotated[
        str | None, typer.Option(help="Dataset name; not needed if there is only one.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(metavar="ID", help="One video with every attempt.")
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Failures whose message matches no fault rule.")
    ] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Videos whose files have the same content.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the status as PNG, SVG or PDF.")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show how many videos are downloaded, lost and still possible, by split and class."""
    from coinml.runtime.settings import Settings

    settings = Settings()
    if figure is not None:
        check_out_file(figure, endings=_FIGURES, replace=force)
    key = known_dataset(settings, dataset)
    if video is not None:
        print_video(settings, key, video, as_json=json)
    elif unknown:
        print_unknown(settings, key, as_json=json)
    elif duplicates:
        print_duplicates(settings, key, as_json=json)
    elif figure is not None:
        draw_status(settings, key, figure, replace=force)
    elif json:
        print_json(status_of(settings, key).as_dict() | extras_of(settings, key))
    else:
        print_status(settings, key)


def status_of(settings: Settings, dataset: str) -> Status:
    """A dataset's status; hours to go are at the rate that the settings allow."""
    from coinml.collection.download import FetchOptions
    from coinml.ledger import Ledger

    credentials = FetchOptions(cookies=settings.cookies, proxy=settings.proxy).credentials()
    with Ledger.of(settings) as ledger:
        return ledger.status(dataset, rate_per_hour=settings.rate_per_hour, credentials=credentials)


def print_status(settings: Settings, dataset: str, *, classes: bool = True) -> None:
    """Print the numbers of videos by state, by split and by class."""
    status = status_of(settings, dataset)
    table([f"{status.total:,} videos of {dataset}", "count", "what it means"], status.states())
    parts = [("split", status.by_split)] + ([("class", status.by_class)] if classes else [])
    for what, counts in parts:
        table(
            [what, "all", "downloaded", "lost", "possible", "due now"],
            [
                [name, c.total, c.downloaded, c.lost, c.possible, c.due]
                for name, c in counts.items()
            ],
        )
    extras = extras_of(settings, dataset)
    if len(extras["sources"]) > 1:
        table(["source", "downloaded"], list(extras["sources"].items()))
    if extras["duplicates"]:
        line(f"{extras['duplicates']:,} files have the content of another video (--duplicates)")
    if extras["contradictions"]:
        groups = [same_file(one) for one in extras["contradictions"]]
        line(
            f"{len(groups):,} files are under more than one class: {listed(groups)}; remove all "
            "but the right one of each"
        )
    if extras["below_input_size"]:
        line(
            f"{extras['below_input_size']:,} downloaded videos have a shorter side of fewer than "
            f"the {extras['input_size_px']} pixels that the encoder sees; they are enlarged for it"
        )
    _print_unusable(settings, dataset)
    for scored in extras["scores"]:
        line(
            f"{scored['classified']:,} new files classified by {scored['model']} version "
            f"{scored['version']}, the last run ended {scored['ended_at']}; "
            f"{scored['drift_text']}"
        )
    if status.eta_hours:
        line(
            f"{status.possible:,} still possible: about {status.eta_hours:.1f} hours to go at "
            f"{settings.rate_per_hour:g} an hour ({extras['asked_last_hour']:,} were asked for in "
            "the last hour)"
        )


def _print_unusable(settings: Settings, dataset: str, *, most: int = 10) -> None:
    """Name files that cannot be used, each with its reason: not all of them do not decode."""
    from coinml.ledger import Ledger

    with Ledger.of(settings) as ledger:
        rows = ledger.rows(dataset, state="corrupt")
    if rows:
        shown = [[row.video_id, row.message or ""] for row in rows[:most]]
        table([f"files that cannot be used: {len(rows):,}", "why"], shown)


def extras_of(settings: Settings, dataset: str) -> dict[str, Any]:
    """The allowed rate, the videos tried in the last hour, duplicates, small videos, sources."""
    from datetime import UTC, datetime, timedelta

    from coinml.encoder.input_size import input_size_px
    from coinml.ledger import Ledger
    from coinml.monitoring.score_store import find_stores

    # Of sets in a bucket nothing is read: the status takes no requests.
    size_px = input_size_px(Path(settings.embeddings_root, dataset).glob("*/spec.json"))
    with Ledger.of(settings) as ledger:
        below = ledger.smaller_than(dataset, size_px)
        sources = ledger.sources(dataset)
        asked = ledger.asked_since(dataset, datetime.now(UTC) - timedelta(hours=1))
        duplicates = sum(len(ids) - 1 for ids in ledger.duplicates(dataset))
        contradictions = ledger.contradictions(dataset)
    return {
        "rate_per_hour": settings.rate_per_hour,
        "asked_last_hour": asked,
        "duplicates": duplicates,
        "contradictions": contradictions,
        "input_size_px": size_px,
        "below_input_size": below,
        "sources": sources,
        "scores": [
            {name: last[name] for name in _OF_SCORES}
            for one in find_stores(settings.data_dir)
            if (last := one.latest()) is not None and last["dataset"] == dataset
        ],
    }


def print_video(settings: Settings, dataset: str, video_id: str, *, as_json: bool) -> None:
    """Print one video with every attempt at it."""
    from dataclasses import asdict

    from coinml.ledger import Ledger

    with Ledger.of(settings) as ledger:
        row, attempts = ledger.row(dataset, video_id), ledger.attempts(dataset, video_id)
    if as_json:
        print_json(asdict(row) | {"attempts": [asdict(attempt) for attempt in attempts]})
        return
    table(["field", "value"], [[k, v] for k, v in asdict(row).items() if v is not None])
    table(
        ["when", "source", "outcome", "seconds", "message"],
        [
            [
                f"{a.started_at:%Y-%m-%d %H:%M:%S}",
                a.source or "",
                a.outcome,
                f"{a.seconds:.1f}",
                a.message or "",
            ]
            for a in attempts
        ],
    )


def print_unknown(settings: Settings, dataset: str, *, as_json: bool) -> None:
    """Print the failures whose message matches no fault rule: they count as transient."""
    from dataclasses import asdict

    from coinml.ledger import Ledger

    with Ledger.of(settings) as ledger:
        attempts = ledger.unknown(dataset)
    if as_json:
        print_json([asdict(attempt) for attempt in attempts])
    else:
        table(
            ["video", "when", "message"],
            [[a.video_id, f"{a.started_at:%Y-%m-%d %H:%M:%S}", a.message or ""] for a in attempts],
        )


def print_duplicates(settings: Settings, dataset: str, *, as_json: bool) -> None:
    """Print the groups of videos whose files have the same content."""
    from coinml.ledger import Ledger

    with Ledger.of(settings) as ledger:
        groups = ledger.duplicates(dataset)
    if as_json:
        print_json(groups)
    else:
        table(["videos with one content", "ids"], [[len(ids), ", ".join(ids)] for ids in groups])


def draw_status(settings: Settings, dataset: str, path: Path, *, replace: bool) -> None:
    """Draw the status into a file."""
    from coinml.figures.attrition import attrition
    from coinml.figures.style import save

    status = status_of(settings, dataset)
    with out_file(path, endings=_FIGURES, replace=replace) as partial:
        save(attrition(status, title=f"Videos of {dataset}"), partial)
    line(str(path))
