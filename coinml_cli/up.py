"""`coinml up`, `down`, `ui`: Prefect, MLflow and workers, left running on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinml.errors import CoinmlError, InvalidInputError, LocalError
from coinml_cli import options
from coinml_ops.environment import FROM_STACK

if TYPE_CHECKING:
    from coinml_ops.stack.record import Stack

POSTGRES = "COINML_POSTGRES"
NO_POSTGRES = "none"

Postgres = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=POSTGRES,
        show_envvar=True,
        help="PostgreSQL server for Prefect, MLflow and the ledger, a database each, made if "
        "absent; `none` for files again. By default what the last `up` used.",
    ),
]
Host = Annotated[
    str | None, typer.Option(help="Address to bind the servers to; by default 127.0.0.1.")
]
PrefectPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="Prefect's; by default 4200, or any other if in use."),
]
MlflowPort = Annotated[
    int | None,
    typer.Option(min=1, max=65535, help="MLflow's; by default 5000, or any other if in use."),
]
Scheduled = Annotated[
    str | None,
    typer.Option(help="What the scheduled deployments work on, as `coinml deploy` takes it."),
]
Print = Annotated[
    str | None,
    typer.Option(
        "--print",
        metavar="systemd|compose",
        help="Start nothing; write files that have it started by systemd or by Docker Compose.",
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
    dataset: Scheduled = None,
    postgres: Postgres = None,
    host: Host = None,
    prefect_port: PrefectPort = None,
    mlflow_port: MlflowPort = None,
    print_: Print = None,
    out: Out = None,
    json: options.Json = False,
) -> None:
    """Leave Prefect, MLflow and two workers running here, with the deployments applied."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import note
    from coinml_cli.stack_files import print_files
    from coinml_ops.prefect_server.local_server import LocalPrefect
    from coinml_ops.stack import starting
    from coinml_ops.stack.postgres import checked
    from coinml_ops.stack.record import Stack
    from coinml_ops.stack.services import PREFECT

    _hide(postgres)
    if postgres is not None:
        postgres = "" if postgres in (NO_POSTGRES, "") else checked(postgres)
    settings = Settings()
    dataset = None if dataset is None else _anywhere(dataset)
    if out is not None and print_ is None:
        raise InvalidInputError("--out goes with --print")
    ledger_url = os.environ.get("COINML_LEDGER_URL", "")
    for name in FROM_STACK:
        # What the stack that runs told this command is nothing that the user has set.
        os.environ.pop(name, None)
        ledger_url = "" if name == "COINML_LEDGER_URL" else ledger_url
    if print_ is not None:
        stack = Stack(
            id="printed",
            home=str(settings.home),
            host=host or starting.LOOPBACK,
            prefect_port=prefect_port or 4200,
            mlflow_port=mlflow_port or 5000,
            postgres=postgres or "",
            dataset=dataset or "",
        )
        print_files(print_, stack, out=out, json=json)
        return
    with starting.only_one(settings.home):
        LocalPrefect(settings.data_dir / "prefect").make_way()
        stack, running = starting.begin(
            settings.home,
            host=host,
            prefect_port=prefect_port,
            mlflow_port=mlflow_port,
            postgres=postgres,
            ledger_url=ledger_url,
            dataset=dataset,
        )
        if running:
            note("it is running; starting what has died, and applying the deployments anew")
        else:
            note("starting Prefect, MLflow and workers; this takes about half a minute")
        deployed = _deploy(stack)
        try:
            starting.wait_until_up(stack, (PREFECT,))
            _check(deployed)
            stack = starting.wait_until_up(stack, said=lambda name: note(f"{name} is up"))
        except (KeyboardInterrupt, CoinmlError):
            deployed.kill()
            deployed.wait()
            if not running:
                starting.end(settings.home)
            raise
    _tell(stack, running=running, json=json)


def down(json: options.Json = False) -> None:
    """Stop what `up` has started, and nothing else; runs in progress get time to stop."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_ops.stack import starting

    home = Settings().home
    with starting.only_one(home):
        stopped = starting.end(home)
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
    no_open: Annotated[bool, typer.Option("--no-open", help="Only say where they are.")] = False,
    json: options.Json = False,
) -> None:
    """Say where Prefect's and MLflow's pages are, and open them in the browser."""
    import webbrowser

    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_ops.stack import record

    stack = record.read(Settings().home)
    if stack is None or not stack.up():
        raise LocalError("nothing is running here: `coinml up` starts it")
    addresses = _addresses(stack)
    if which is not None and which not in addresses:
        raise InvalidInputError(f"{which}: one of {', '.join(addresses)}")
    shown = {name: url for name, url in addresses.items() if which in (None, name)}
    if json:
        print_json(shown)
    else:
        for name, url in shown.items():
            line(f"{name:<8}{url}")
    # Without a display, Python would take a browser that runs in this terminal.
    display = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if display and not no_open:
        for url in shown.values():
            webbrowser.open(url)


def _hide(postgres: str | None) -> None:
    """Have a password that was typed on the command line taken from it, for all to see there.

    The process goes on as the same one with the URL in its environment.
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


def _anywhere(dataset: str) -> str:
    """A dataset as it can be named from any folder."""
    from coinml.data.annotations import FOLDER_PREFIX
    from coinml.selection import MINI

    if dataset == MINI:
        return dataset
    prefix = FOLDER_PREFIX if dataset.startswith(FOLDER_PREFIX) else ""
    return prefix + str(Path(dataset.removeprefix(prefix)).expanduser().resolve())


def _deploy(stack: Stack) -> subprocess.Popen[str]:
    """Have the deployments applied to the stack's server as soon as it answers."""
    from coinml_ops.stack import starting
    from coinml_ops.stack.services import services

    worker = services(stack)[-1]
    call = [sys.executable, "-m", "coinml_cli", "deploy", "--json"]
    call += ["--wait", str(starting.UP_TIMEOUT_S)]
    if stack.dataset:
        call += ["--dataset", stack.dataset]
    # Only its answer goes to stdout, and only what is wrong to stderr: less than a pipe holds.
    return subprocess.Popen(
        call,
        env=worker.full_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check(deployed: subprocess.Popen[str]) -> None:
    """Wait until the deployments are applied.

    Raises:
        InvalidInputError: The dataset is none.
        LocalError: They could not be applied.
    """
    _, errors = deployed.communicate()
    if deployed.returncode == 0:
        return
    said = errors.strip().rpartition("error: ")[2] or f"exit code {deployed.returncode}"
    error = InvalidInputError if deployed.returncode == 2 else LocalError
    raise error(f"the deployments were not applied: {said}")


def _addresses(stack: Stack) -> dict[str, str]:
    return {"prefect": stack.prefect_url, "mlflow": stack.mlflow_url}


def _tell(stack: Stack, *, running: bool, json: bool) -> None:
    from coinml_cli.console import line, print_json
    from coinml_ops.stack.postgres import Databases

    database = f"PostgreSQL at {Databases(stack.postgres).shown()}" if stack.postgres else "files"
    if json:
        answer: dict[str, Any] = {
            **_addresses(stack),
            "prefect_api": stack.prefect_api,
            "was_running": running,
            "database": database,
            "logs": str(stack.logs),
            "services": {name: one.pid for name, one in stack.services.items()},
        }
        print_json(answer)
        return
    for name, url in _addresses(stack).items():
        line(f"{name:<10}{url}")
    line(f"{'workers':<10}of the queues network and gpu, as processes of this machine")
    line(f"{'state':<10}{database} (below {stack.home})")
    line(f"{'logs':<10}{stack.logs}")
    line("`coinml down` stops all of it; other coinml commands of this home use it meanwhile")
