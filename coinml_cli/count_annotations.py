"""`coinml annotations`: the videos of a dataset, counted by split and class."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.data.records import Dataset
    from coinml.selection import Selection


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app,
        count,
        name="annotations",
        epilog="Example: coinml annotations COIN.json --classes BoilNoodles,MakeTea",
    )


def count(
    part: Annotated[Selection, Only("name", "classes", "limit", "group", "split_seed")],
    dataset: Annotated[
        str, typer.Argument(help="`mini`, a COIN-layout JSON file, a CSV file, or `folder:DIR`.")
    ] = "mini",
    json: Json = False,
) -> None:
    """Count a dataset's videos by split and class; explains what is wrong with bad input."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import show_notes

    loaded = part.model_copy(update={"dataset": dataset}).load(Settings().data_dir)
    show_notes(loaded)
    summary, by_class = _totals(loaded), _by_class(loaded)
    if json:
        print_json(summary | {"by_class": by_class})
    else:
        _print(summary, by_class)


def _totals(dataset: Dataset) -> dict[str, Any]:
    from coinml.data.annotations import SUBSETS
    from coinml.data.records import SPLITS

    videos = dataset.videos
    steps = [step for video in videos for step in video.steps]
    return {
        "dataset": dataset.name,
        "videos": len(videos),
        "tasks": len(dataset.classes),
        "domains": len({video.domain for video in videos if video.domain}),
        "steps": len({step.step_id for step in steps}),
        "segments": len(steps),
        "by_subset": {subset: sum(v.subset == subset for v in videos) for subset in SUBSETS},
        "by_split": {split: sum(v.split == split for v in videos) for split in SPLITS},
    }


def _by_class(dataset: Dataset) -> dict[str, dict[str, Any]]:
    from coinml.data.records import SPLITS

    cells = Counter((video.label, video.split) for video in dataset.videos)
    domains = {video.label: video.domain for video in dataset.videos}
    return {
        label: {"domain": domains[label]} | {split: cells[label, split] for split in SPLITS}
        for label in dataset.classes
    }


def _print(summary: dict[str, Any], by_class: dict[str, dict[str, Any]]) -> None:
    from coinml.data.records import SPLITS
    from coinml_cli.console import line, table

    table(
        ["class", "domain", *SPLITS, "all"],
        [
            [
                label,
                row["domain"] or "",
                *(row[split] for split in SPLITS),
                sum(row[split] for split in SPLITS),
            ]
            for label, row in by_class.items()
        ],
    )
    line(
        f"{summary['dataset']}: {summary['videos']:,} videos, {summary['tasks']} tasks, "
        f"{summary['domains']} domains, {summary['steps']} steps in {summary['segments']:,} "
        "segments"
    )

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in counts.items())

    line(f"official: {listed(summary['by_subset'])}; used as: {listed(summary['by_split'])}")
