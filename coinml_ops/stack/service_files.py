"""Files that let systemd or Docker Compose run a stack: `coinml up --print`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from coinml.errors import InvalidInputError
from coinml.runtime.atomic_files import write_whole
from coinml_ops.access.password import VARIABLE, ensure_password, password_file
from coinml_ops.prefect_project import PROJECT
from coinml_ops.stack.compose import compose_file
from coinml_ops.stack.record import Stack
from coinml_ops.stack.systemd import FOLDER, TARGET, units

HOW_TO_START = {
    "systemd": f"as root: put them into {FOLDER}, then systemctl enable --now {TARGET}",
    "compose": "start it with: docker compose up --detach --build",
}


def service_files(manager: str, stack: Stack, *, coinml: Sequence[str]) -> dict[str, str]:
    """The text of each file by its name.

    Args:
        manager: "systemd" or "compose".
        stack: Its settings.
        coinml: Command line of `coinml` on this machine.

    Raises:
        InvalidInputError: Compose builds an image, and this is not a checkout with a Dockerfile; or
            a path or name has characters that the files cannot hold.
    """
    for what, value in (
        ("COINML_HOME", stack.home),
        ("--dataset", stack.dataset),
        ("the folder of the code", str(PROJECT)),
        *(("the path of coinml", word) for word in coinml),
    ):
        _require_plain(what, value, shown=True)
    secrets = (password_file(Path(stack.home) / "data"), secrets_path(stack))
    if manager == "systemd":
        return units(stack, secrets=secrets, coinml=coinml)
    if not (PROJECT / "Dockerfile").is_file():
        raise InvalidInputError("--print compose: the image is built from a checkout of coinml")
    return {"compose.yaml": compose_file(stack, code=PROJECT, secrets=secrets)}


def _require_plain(what: str, value: str, *, shown: bool) -> None:
    """Refuse quotes, backslashes and control characters: systemd and Compose read them differently.

    A line break would begin another setting.
    """
    found = sorted({one for one in value if one in "'\"\\" or not one.isprintable()})
    if found:
        named = f"{what} {value!r}" if shown else what
        raise InvalidInputError(
            f"{named}: {', '.join(map(ascii, found))} cannot be in a "
            "file for systemd or Compose; allowed are printable characters without quotes and "
            "backslashes" + ("" if shown else " (in a URL, write %27 for ' and %22 for \")")
        )


def secrets_path(stack: Stack) -> Path:
    """The file of variables that the printed files refer to."""
    return stack.folder / "secrets.env"


def write_secrets(stack: Stack) -> Path:
    """Save this environment's COINML_ variables for the services; only the owner may read them.

    The servers' password has a file of its own, which is made here if it is missing.

    Raises:
        InvalidInputError: COINML_SERVER_PASSWORD is too short or has other characters, or a value
            has characters that the file cannot hold; the value is not shown.
    """
    ensure_password(Path(stack.home) / "data")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("COINML_") and name not in ("COINML_HOME", "COINML_STACK", VARIABLE)
    }
    if kept.get("COINML_COOKIES"):
        # The services run in another folder.
        kept["COINML_COOKIES"] = str(Path(kept["COINML_COOKIES"]).expanduser().resolve())
    kept.pop("COINML_POSTGRES", None)
    if stack.postgres:
        kept["COINML_POSTGRES"] = stack.postgres
    for name, value in kept.items():
        _require_plain(name, value, shown=False)
    path = secrets_path(stack)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Between single quotes, both systemd and Compose take a value literally.
    lines = "".join(f"{name}='{value}'\n" for name, value in sorted(kept.items()))
    write_whole(path, lines, private=True)
    return path
