"""`coinml embed` and `similar`: from videos to vectors, and what is near."""

from __future__ import annotations

from typing import Annotated

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml embed --dataset COIN.json --encoder ./videomae-base")(embed)
    app.command(epilog="Example: coinml similar clip.mp4 --dataset mini -k 5")(similar)


def embed(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    encoder: options.Encoder = None,
    revision: options.Revision = None,
    clips: options.Clips = 8,
    stride: options.Stride = 4,
    snap: options.Snap = "exact",
    keep_tokens: options.KeepTokens = 1.0,
    keep_seed: options.KeepSeed = 0,
    extent: options.Extent = None,
    decoder: options.Decoder = "auto",
    deadline: options.Deadline = 60,
    runner: options.Runner = "local",
    address: options.Address = None,
    devices: options.Devices = None,
    json: options.Json = False,
) -> None:
    """Embed the videos that are here and not yet in the set."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.printing import print_embedded
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    made = options.set_options(
        encoder, revision, clips, stride, snap, keep_tokens, keep_seed, extent
    )
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.embed import embed as flow

        summary = flow(
            chosen,
            set_options=made,
            decoder=decoder,
            deadline_s=deadline,
            runner=runner,
            address=address,
            devices=devices,
        )
    if json:
        print_json(summary.as_dict())
    else:
        print_embedded(summary)


def similar(
    video: Annotated[str, typer.Argument(help="A video file, or the id of a video in the set.")],
    dataset: options.Known = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    metric: Annotated[str, typer.Option(help="`cosine` or `l2`.")] = "cosine",
    encoder: Annotated[
        str | None, typer.Option(help="The set's encoder, where its name does not find it.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the videos of the newest embedding set that look most like another."""
    from dataclasses import asdict

    from coinml.embedding_sets.neighbours import find_similar
    from coinml.ledger import Ledger
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json, table
    from coinml_cli.printing import known_dataset
    from coinml_ops.environment import log_to

    settings = Settings()
    log_to(settings.logs_dir)
    key = known_dataset(settings, dataset)
    found = find_similar(
        video,
        settings.embeddings_root,
        key,
        encoder=encoder,
        k=k,
        metric=metric,
        device=settings.device,
    )
    with Ledger(settings.ledger_url) as ledger:
        rows = {row.video_id: row for row in ledger.rows(key, ids=[one.video_id for one in found])}
    answers = [
        asdict(one) | {"label": rows[one.video_id].label, "path": rows[one.video_id].path}
        for one in found
    ]
    if json:
        print_json(answers)
    else:
        table(
            ["video", "label", metric, "file"],
            [[a["video_id"], a["label"], f"{a['score']:.3f}", a["path"] or ""] for a in answers],
        )
