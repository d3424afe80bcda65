"""`coinml up --print`: files that let systemd or Docker Compose run the stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError
from coinml.runtime.out_files import check_out_file, check_out_folder, out_file

if TYPE_CHECKING:
    from coinml_ops.stack.record import Stack


def print_files(
    manager: str,
    stack: Stack,
    *,
    coinml: Sequence[str],
    out: Path | None,
    replace: bool,
    json: bool,
) -> None:
    """Write the files to a folder, or to stdout.

    Raises:
        InvalidInputError: Neither `systemd` nor `compose`, or a file in the folder is there and may
            not be replaced.
        LocalError: The folder cannot be written.
    """
    from coinml_cli.console import line, note, print_json
    from coinml_ops.stack.service_files import HOW_TO_START, service_files, write_secrets

    if manager not in HOW_TO_START:
        raise InvalidInputError(f"--print {manager}: one of {', '.join(HOW_TO_START)}")
    files = service_files(manager, stack, coinml=coinml)
    if out is not None:
        check_out_folder(out)
        for name in files if out.is_dir() else ():
            check_out_file(out / name, endings=(Path(name).suffix,), replace=replace)
    secrets = write_secrets(stack)
    if json:
        print_json({"files": files, "secrets": str(secrets)})
    elif out is None:
        for name, text in files.items():
            line(f"# {name}\n{text}")
    if out is not None:
        out.mkdir(exist_ok=True)
        for name, text in files.items():
            with out_file(out / name, endings=(Path(name).suffix,), replace=replace) as partial:
                partial.write_text(text)
            note(f"wrote {out / name}")
    note(f"the COINML_ variables that are set now are in {secrets}, which only you can read")
    note(HOW_TO_START[manager])
