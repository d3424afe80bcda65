"""`coinml up`, `down`, `ui`: Prefect, MLflow and workers, left running on this machine."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml.errors import CoinmlError, InvalidInputError, LocalError
from coinml_cli import deploy, options
from coinml_ops.environment import FROM_STACK

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml_ops.stack.lifecycle import StackOptions
    from coinml_ops.stack.record import Stack

POSTGRES = "COINML_POSTGRES"
NO_POSTGRES = "none"
COINML = (sys.executable, "-P", "-m", "coinml_cli")
"""Command line of `coinml`, wherever it is installed."""

Postgres = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=POSTGRES,
        show_envvar=True,
        help="PostgreSQL server for Prefect, MLflow and the ledger, with a database each, created "
        "if missing; `none`: files. By default what the last `up` used.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        help="Address to bind the servers to; by default 127.0.0.1. Requests need the password in "
        "data/access.env, and nothing is encrypted."
    ),
]
PrefectPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Prefect's; by default 4200, or any other if in use."),
]
MlflowPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="MLflow's; by default 5000, or any other if in use."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="That of the page for Prometheus; by default 4201."),
]
Print = Annotated[
    str | None,
    typer.Option(
        "--print",
        metavar="systemd|compose",
        help="Start nothing; write files that let systemd or Docker Compose start it.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="With --print: write the files there, not to stdout.")
]


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml up --dataset COIN.json")(up)
    app.command(epilog="Example: coinml down")(down)
    app.command(epilog="Example: coinml ui mlflow")(ui)


def up(
    dataset: deploy.Dataset = None,
    name: deploy.Name = None,
    source: deploy.Source = None,
    encoder: deploy.Encoder = None,
    budget: deploy.Budget = None,
    min_new: deploy.MinNew = None,
    cron: deploy.Cron = None,
    reset: deploy.Reset = False,
    postgres: Postgres = None,
    host: Host = None,
    prefect_port: PrefectPort = None,
    mlflow_port: MlflowPort = None,
    metrics_port: MetricsPort = None,
    print_: Print = None,
    out: Out = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Start Prefect, MLflow, metrics and two workers in the background; apply the deployments."""
    from coinml.runtime.settings import Settings
    from coinml_cli.print_service_files import print_files
    from coinml_ops.deployments.selection import absolute_dataset
    from coinml_ops.stack.lifecycle import LOOPBACK, StackOptions
    from coinml_ops.stack.postgres import checked
    from coinml_ops.stack.record import Stack

    _hide(postgres)
    if postgres is not None:
        postgres = "" if postgres in (NO_POSTGRES, "") else checked(postgres)
    settings = Settings()
    dataset = None if dataset is None else absolute_dataset(dataset)
    choices = _deploy_options(name, source, encoder, budget, min_new, cron, reset=reset)
    if choices and print_ is not None:
        raise InvalidInputError(
            f"{choices[0]} does not go with --print: `coinml deploy` takes it once they are started"
        )
    if print_ is None and (out is not None or force):
        raise InvalidInputError(f"{'--force' if out is None else '--out'} goes with --print")
    ledger_url = _own_ledger_url()
    if print_ is not None:
        stack = Stack(
            id="printed",
            home=str(settings.home),
            host=host or LOOPBACK,
            prefect_port=prefect_port or 4200,
            mlflow_port=mlflow_port or 5000,
            metrics_port=metrics_port or 4201,
            postgres=postgres or "",
            dataset=dataset or "",
        )
        print_files(print_, stack, coinml=COINML, out=out, replace=force, json=json)
        return
    stack, running = _start_and_deploy(
        settings,
        StackOptions(
            host=host,
            prefect_port=prefect_port,
            mlflow_port=mlflow_port,
            metrics_port=metrics_port,
            postgres=postgres,
            ledger_url=ledger_url,
            dataset=dataset,
        ),
        choices,
    )
    _tell(stack, running=running, json=json)


def down(json: options.Json = False) -> None:
    """Stop what `up` has started; runs in progress get time to stop."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_ops.stack import lifecycle

    home = Settings().home
    with lifecycle.exclusive(home):
        stopped = lifecycle.stop(home)
    if json:
        print_json({"stopped": stopped})
    elif stopped:
        line(f"stopped: {', '.join(stopped)}")
    else:
        line("nothing was running")


def ui(
    which: Annotated[
        str | None, typer.Argument(metavar="[prefect|mlflow]", help="Which; by default both.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the addresses.")] = False,
    json: options.Json = False,
) -> None:
    """Print the addresses of Prefect's and MLflow's pages, and open them, signed in."""
    import webbrowser

    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, note, print_json
    from coinml_ops.access.sign_in_files import write_sign_in_files
    from coinml_ops.stack import record
    from coinml_ops.upkeep.moved_home import check_place

    settings = Settings()
    check_place(settings)
    stack = record.read(settings.home)
    if stack is None or not stack.up():
        raise LocalError("no stack is running: `coinml up` starts it")
    addresses = _addresses(stack)
    if which is not None and which not in addresses:
        raise InvalidInputError(f"{which}: one of {', '.join(addresses)}")
    shown = {name: url for name, url in addresses.items() if which in (None, name)}
    if json:
        print_json(shown)
    else:
        for name, url in shown.items():
            line(f"{name:<8}{url}")
        if which is None:
            line(f"{'shell':<8}{_exports(stack)}")
        if which != "mlflow":
            _tell_artifacts(stack)
    files = write_sign_in_files(settings.data_dir, shown)
    # Without a display, Python would open a browser that runs in this terminal.
    display = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if display and not no_open:
        for file in files.values():
            webbrowser.open(file.as_uri())
    else:
        for name, file in files.items():
            note(f"{name}: sign in by opening {file} in a browser of this machine")


def _tell_artifacts(stack: Stack) -> None:
    """Print the pages of the runs' results, to which Prefect's menu does not lead."""
    from coinml_cli.console import line
    from coinml_ops.stack.artifact_pages import artifact_pages

    pages = artifact_pages(stack)
    if pages:
        line(f"results of runs, also at {stack.prefect_url}/artifacts:")
        width = max(len(key) for key in pages)
        for key, page in pages.items():
            line(f"  {key:<{width}}  {page}")


def _own_ledger_url() -> str:
    """COINML_LEDGER_URL, if the user has set it; the running stack's variables are removed."""
    url = os.environ.get("COINML_LEDGER_URL", "")
    for name in FROM_STACK:
        os.environ.pop(name, None)
    return "" if "COINML_LEDGER_URL" in FROM_STACK else url


def _deploy_options(
    name: str | None,
    source: list[str] | None,
    encoder: str | None,
    budget: int | None,
    min_new: int | None,
    cron: list[str] | None,
    *,
    reset: bool,
) -> list[str]:
    """What was given of `coinml deploy`'s options, as it takes them."""
    from coinml_ops.deployments.selection import absolute_encoder

    given = [("--name", name), *(("--source", one) for one in source or ())]
    given += [
        ("--encoder", None if encoder is None else absolute_encoder(encoder)),
        ("--budget", None if budget is None else str(budget)),
        ("--min-new", None if min_new is None else str(min_new)),
        *(("--cron", one) for one in cron or ()),
    ]
    return [
        *(part for option, value in given if value is not None for part in (option, value)),
        *(["--reset"] if reset else []),
    ]


def _start_and_deploy(
    settings: Settings, options: StackOptions, choices: list[str]
) -> tuple[Stack, bool]:
    """Start the stack, apply the deployments, and wait until every service answers.

    Returns:
        The stack, and whether it was running before; if not, a failure stops it again.
    """
    from coinml_cli.console import note
    from coinml_ops.deployments.chosen import read_chosen
    from coinml_ops.prefect_server.local_server import LocalPrefect
    from coinml_ops.stack import lifecycle, record
    from coinml_ops.stack.deploying import finish_deploy, start_deploy
    from coinml_ops.stack.services import PREFECT
    from coinml_ops.upkeep.moved_home import check_place

    check_place(settings)
    chosen = read_chosen(settings.data_dir)
    with lifecycle.exclusive(settings.home):
        before = record.read(settings.home)
        LocalPrefect(settings.data_dir / "prefect").make_way()
        if lifecycle.is_open(settings.home):
            note(
                "the running servers, of an earlier version, ask for no password: replacing them. "
                "A run in progress is marked as crashed, and the next one continues its work"
            )
        stack, running = lifecycle.start(settings.home, options)
        if running:
            note("it is running; restarting dead services and applying the deployments again")
        else:
            note("starting Prefect, MLflow and workers; this takes about half a minute")
        # A version before the file of choices kept the dataset in the stack's record.
        dataset = options.dataset or (stack.dataset if chosen.dataset is None else "")
        process = start_deploy(
            stack, COINML, [*(["--dataset", dataset] if dataset else []), *choices]
        )
        try:
            lifecycle.wait_until_up(stack, (PREFECT,))
            edits = finish_deploy(process)
            for edit in edits:
                note(str(edit["said"]))
            if any(edit["kept"] for edit in edits):
                note("`coinml up --reset` overwrites what was edited on the server")
            stack = lifecycle.wait_until_up(stack, on_up=lambda name: note(f"{name} is up"))
        except (KeyboardInterrupt, CoinmlError):
            process.kill()
            process.wait()
            if not running:
                lifecycle.stop(settings.home)
            # The next `up` must not take a dataset that was refused.
            record.update(settings.home, dataset="" if before is None else before.dataset)
            raise
    return stack, running


def _hide(postgres: str | None) -> None:
    """Remove a PostgreSQL password from the command line, which every user can read.

    The process replaces itself by one with the URL in its environment.
    """
    from coinml_ops.stack.postgres import password_of

    if postgres is None or not password_of(postgres):
        return
    arguments = list(sys.orig_argv[1:])
    kept = [
        part
        for before, part in zip(["", *arguments], arguments, strict=False)
        if part != "--postgres"
        and not part.startswith("--postgres=")
        and not (before == "--postgres" and part == postgres)
    ]
    if kept != arguments:
        os.environ[POSTGRES] = postgres
        os.execv(sys.executable, [sys.executable, *kept])


def _addresses(stack: Stack) -> dict[str, str]:
    return {"prefect": stack.prefect_url, "mlflow": stack.mlflow_url}


def _exports(stack: Stack) -> str:
    """A shell's line after which `prefect` and `mlflow` use these servers."""
    from coinml_ops.access.password import password_file

    password = shlex.quote(str(password_file(Path(stack.home) / "data")))
    addresses = f"PREFECT_API_URL={stack.prefect_api} MLFLOW_TRACKING_URI={stack.mlflow_url}"
    return f"set -a; . {password}; {addresses}; set +a"


def _tell(stack: Stack, *, running: bool, json: bool) -> None:
    from coinml_cli.console import line, print_json
    from coinml_ops.access.password import password_file
    from coinml_ops.stack.postgres import Databases

    database = f"PostgreSQL at {Databases(stack.postgres).shown()}" if stack.postgres else "files"
    if json:
        answer: dict[str, Any] = {
            **_addresses(stack),
            "prefect_api": stack.prefect_api,
            "metrics": f"{stack.metrics_url}/metrics",
            "was_running": running,
            "database": database,
            "logs": str(stack.logs),
            "password": str(password_file(Path(stack.home) / "data")),
            "services": {name: one.pid for name, one in stack.services.items()},
        }
        print_json(answer)
        return
    for name, url in _addresses(stack).items():
        line(f"{name:<10}{url}")
    line(f"{'metrics':<10}{stack.metrics_url}/metrics")
    line(f"{'workers':<10}of the queues network and gpu, as processes of this machine")
    line(f"{'state':<10}{database} (below {stack.home})")
    line(f"{'logs':<10}{stack.logs}")
    line(f"{'password':<10}in {password_file(Path(stack.home) / 'data')}; `coinml ui` signs in")
    line(f"{'shell':<10}{_exports(stack)}")
    line("`coinml down` stops all of it; other coinml commands of this home use it meanwhile")
