"""`coinml up --print`: files that have the stack run by systemd or by Docker Compose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from coinml_ops.stack.record import Stack

KINDS = ("systemd", "compose")


def print_files(kind: str, stack: Stack, *, out: Path | None, json: bool) -> None:
    """Write the files to a folder, or to stdout.

    Raises:
        InvalidInputError: There is no such kind of files.
    """
    from coinml_cli.console import line, note, print_json
    from coinml_ops.stack.compose import compose_file
    from coinml_ops.stack.systemd import FOLDER, TARGET, units

    if kind not in KINDS:
        raise InvalidInputError(f"--print {kind}: one of {', '.join(KINDS)}")
    secrets = stack.folder / "secrets.env"
    if kind == "systemd":
        files = units(stack, secrets=secrets)
        then = f"as root: put them into {FOLDER}, then systemctl enable --now {TARGET}"
    else:
        code = Path(__file__).resolve().parents[1]
        if not (code / "Dockerfile").is_file():
            raise InvalidInputError("--print compose: the image is built from a checkout of coinml")
        files = {"compose.yaml": compose_file(stack, code=code, secrets=secrets)}
        then = "start it with: docker compose up --detach --build"
    _keep(secrets, stack)
    if json:
        print_json({"files": files, "secrets": str(secrets)})
    elif out is None:
        for name, text in files.items():
            line(f"# {name}\n{text}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (out / name).write_text(text)
            note(f"wrote {out / name}")
    note(f"the COINML_ variables that are set now are in {secrets}, for you alone to read")
    note(then)


def _keep(path: Path, stack: Stack) -> None:
    """Write down the variables of this environment that services would otherwise not have."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("COINML_") and name not in ("COINML_HOME", "COINML_STACK")
    }
    if kept.get("COINML_COOKIES"):
        # The services run in another folder.
        kept["COINML_COOKIES"] = str(Path(kept["COINML_COOKIES"]).expanduser().resolve())
    kept.pop("COINML_POSTGRES", None)
    if stack.postgres:
        kept["COINML_POSTGRES"] = stack.postgres
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    # Both systemd and Compose take what stands between single quotes as it is.
    temporary.write_text("".join(f"{name}='{value}'\n" for name, value in sorted(kept.items())))
    temporary.replace(path)
