"""`coinml annotations`: what a dataset says it has."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        "annotations", epilog="Example: coinml annotations COIN.json --classes BoilNoodles,MakeTea"
    )(count)


def count(
    dataset: Annotated[
        str, typer.Argument(help="`mini`, a COIN-layout JSON file, or `folder:DIR`.")
    ] = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    json: options.Json = False,
) -> None:
    """Count a dataset's videos by split and class; says what is wrong with bad input."""
    from coinml.data.annotations import SUBSETS
    from coinml.data.records import SPLITS
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json, table

    chosen = options.selection(dataset, name, classes, limit, group)
    loaded = chosen.load(Settings().data_dir)
    videos = loaded.videos
    steps = [step for video in videos for step in video.steps]
    subsets = {subset: sum(v.subset == subset for v in videos) for subset in SUBSETS}
    splits = {split: sum(v.split == split for v in videos) for split in SPLITS}
    summary = {
        "dataset": loaded.name,
        "videos": len(videos),
        "tasks": len(loaded.classes),
        "domains": len({video.domain for video in videos if video.domain}),
        "steps": len({step.step_id for step in steps}),
        "segments": len(steps),
        "by_subset": subsets,
        "by_split": splits,
    }
    cells = Counter((video.label, video.split) for video in videos)
    domains = {video.label: video.domain for video in videos}
    by_class = {
        label: {"domain": domains[label]} | {split: cells[label, split] for split in SPLITS}
        for label in loaded.classes
    }
    if json:
        print_json(summary | {"by_class": by_class})
        return
    table(
        ["class", "domain", *SPLITS, "all"],
        [
            [
                label,
                row["domain"] or "",
                *(row[s] for s in SPLITS),
                sum(cells[label, s] for s in SPLITS),
            ]
            for label, row in by_class.items()
        ],
    )
    line(
        f"{loaded.name}: {len(videos):,} videos, {summary['tasks']} tasks, "
        f"{summary['domains']} domains, {summary['steps']} steps in "
        f"{summary['segments']:,} segments"
    )
    line(
        "official: "
        + ", ".join(f"{count:,} {name}" for name, count in subsets.items())
        + "; used as: "
        + ", ".join(f"{count:,} {name}" for name, count in splits.items())
    )
