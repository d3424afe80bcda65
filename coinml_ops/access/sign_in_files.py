"""Files that sign a browser in to the servers of a home, which only their owner may read.

A URL with a password would stand in the browser's history and, while the browser starts, in its
command line, which every user of the machine can read. The path of a file tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coinml.runtime.atomic_files import write_whole
from coinml_ops.access.gate import sign_in_page
from coinml_ops.access.password import read_password


def write_sign_in_files(data_dir: Path, servers: Mapping[str, str]) -> dict[str, Path]:
    """Write a page for each server that signs in the browser that opens it.

    Args:
        data_dir: The home's `data` folder.
        servers: Address by name.

    Returns:
        The files by the servers' names.
    """
    password = read_password(data_dir)
    folder = data_dir / "stack"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"sign-in-{name}.html" for name in servers}
    for name, file in files.items():
        write_whole(file, sign_in_page(servers[name], password), private=True)
    return files
