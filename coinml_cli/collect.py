"""`coinml collect`, `import`, `status` and `check`: getting videos, and where they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        epilog="Example: coinml collect --dataset COIN.json --budget 250 --only pending,transient"
    )(collect)
    app.command("import", epilog="Example: coinml import ~/coin-videos --dataset COIN.json")(
        import_files
    )
    app.command(epilog="Example: coinml status --dataset coin --json")(status)
    app.command(epilog="Example: coinml check data/videos/coin/*.mp4")(check)


def collect(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    source: options.Source = None,
    budget: options.Budget = None,
    batch_size: options.BatchSize = 20,
    max_wait: options.MaxWait = 60,
    max_height: options.MaxHeight = 360,
    only: options.Only = None,
    retry_now: options.RetryNow = False,
    reprobe: options.Reprobe = False,
    json: options.Json = False,
) -> None:
    """Download what is still due; a second call goes on where the first one ended."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_cli.printing import print_status
    from coinml_cli.session import flow_session, load_shown

    settings = Settings()
    chosen = options.selection(dataset, name, classes, limit, group)
    with flow_session(settings):
        load_shown(chosen, settings)
        from flows.collect import collect as flow

        report = flow(
            chosen,
            source=source,
            budget=budget,
            batch_size=batch_size,
            max_wait_s=max_wait,
            max_height=max_height,
            only=options.listed(only),
            retry_now=retry_now,
            reprobe=reprobe,
        )
    if json:
        print_json(report.as_dict())
    else:
        print_status(settings, report.dataset)
        line(str(report))
    raise typer.Exit(0 if report.complete else 3)


def import_files(
    folder: Annotated[Path, typer.Argument(help="Video files; a file's name is its id.")],
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    json: options.Json = False,
) -> None:
    """Adopt video files that are here already, verifying each."""
    from dataclasses import asdict

    from coinml.collection.adopt import adopt_folder
    from coinml.ledger import Ledger
    from coinml.runtime import progress
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json, table
    from coinml_cli.session import watched

    settings = Settings()
    loaded = options.selection(dataset, name, None, None, None).load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger, watched(), progress.stage("import"):
        ledger.register(loaded)
        report = adopt_folder(
            ledger,
            loaded.name,
            folder,
            videos_dir=settings.videos_dir(loaded.name),
            progress=lambda _done, total: progress.advance("import", total=total),
        )
    if json:
        print_json(asdict(report))
        return
    line(
        f"{len(report.adopted)} adopted, {len(report.already)} were here already, "
        f"{len(report.failed)} do not decode, {len(report.unknown)} are not in {loaded.name}"
    )
    if report.failed:
        table(["id", "why it was not taken"], sorted(report.failed.items()))


def status(
    dataset: Annotated[
        str | None, typer.Option(help="Its name; not needed where there is one.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(metavar="ID", help="One video, each attempt.")
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="The failures whose words no rule knew.")
    ] = False,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Videos whose files have the same content.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it, as PNG, SVG or PDF.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show how many videos are here, lost and still possible, by split and class."""
    from coinml.runtime.settings import Settings
    from coinml_cli import printing
    from coinml_cli.console import print_json

    settings = Settings()
    key = printing.known_dataset(settings, dataset)
    if video is not None:
        printing.print_video(settings, key, video, as_json=json)
    elif unknown:
        printing.print_unknown(settings, key, as_json=json)
    elif duplicates:
        printing.print_duplicates(settings, key, as_json=json)
    elif figure is not None:
        printing.draw_status(settings, key, figure)
    elif json:
        print_json(printing.status_of(settings, key).as_dict() | printing.extras_of(settings, key))
    else:
        printing.print_status(settings, key)


def check(
    files: Annotated[list[Path], typer.Argument(help="Video files.")],
    deadline: Annotated[float, typer.Option(min=1, help="Seconds a file may take.")] = 30,
    json: options.Json = False,
) -> None:
    """Decode files from end to end and say which are sound."""
    from coinml import media
    from coinml.errors import InvalidInputError
    from coinml.runtime import progress
    from coinml.runtime.cpus import cpu_count
    from coinml_cli.console import print_json, table
    from coinml_cli.session import watched

    verdicts: list[dict[str, Any]] = []
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
            verdicts.append(verdict.as_dict())
            progress.advance("check")
    if json:
        print_json(verdicts)
        return
    table(
        ["file", "verdict", "frames", "claimed", "reason"],
        [
            [
                v["file"],
                v["verdict"],
                v["frames_decoded"],
                v["frames_claimed"] or "-",
                v["reason"] or "",
            ]
            for v in verdicts
        ],
    )
