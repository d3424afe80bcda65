"""`coinml similar`: the nearest neighbours of a video in an embedding set."""

from __future__ import annotations

from typing import Annotated

import typer

from coinml_cli.options import Json, Known


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml similar clip.mp4 --dataset mini -k 5")(similar)


def similar(
    video: Annotated[str, typer.Argument(help="A video file, or the id of a video in the set.")],
    dataset: Known = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbours.")] = 10,
    metric: Annotated[str, typer.Option(help="`cosine` or `l2`.")] = "cosine",
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Id or folder of the set's encoder, if it is not found under the recorded name."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Find the videos of the newest embedding set whose vectors are nearest to those of VIDEO."""
    from dataclasses import asdict

    from coinml.embedding_sets.neighbours import find_similar
    from coinml.ledger import Ledger
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json, table
    from coinml_cli.options import known_dataset
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
    with Ledger.of(settings) as ledger:
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
