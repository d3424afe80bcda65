"""`coinml check`: whether video files decode from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinml_cli.options import Json


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml check data/videos/coin/*.mp4")(check)


def check(
    files: Annotated[list[Path], typer.Argument(help="Video files.")],
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds that decoding one file may take.")
    ] = 30,
    json: Json = False,
) -> None:
    """Decode files from end to end and say which are intact."""
    from coinml import media
    from coinml.errors import InvalidInputError
    from coinml.runtime import progress
    from coinml.runtime.cpus import cpu_count
    from coinml_cli.console import print_json, table
    from coinml_cli.flow_session import watched

    verdicts: list[media.Verdict] = []
    workers = min(cpu_count(), len(files))
    with (
        watched(),
        progress.stage("check", len(files)),
        media.DecodePool(workers=workers) as pool,
    ):
        pending = [pool.submit_check(file, deadline_s=deadline) for file in files]
        for file, future in zip(files, pending, strict=True):
            try:
                verdict = future.result()
            except InvalidInputError as err:
                verdict = media.unusable(file, str(err))
            verdicts.append(verdict)
            progress.advance("check")
    if json:
        print_json([verdict.as_dict() for verdict in verdicts])
        return
    table(
        ["file", "verdict", "frames", "claimed", "length (s)", "times (s)", "reason"],
        [
            [
                v.file,
                v.verdict,
                v.frames_decoded,
                v.frames_claimed or "-",
                "-" if v.duration_s is None else f"{v.duration_s:.2f}",
                "-" if v.earliest_s is None else f"{v.earliest_s:.2f} to {v.latest_s:.2f}",
                v.reason or "",
            ]
            for v in verdicts
        ],
    )
