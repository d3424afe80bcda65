"""Files that a user names to be written: one rule for all, also checked before the work.

The file's folder exists and can be written; the name has an ending that is allowed; what is there
is a file, and is replaced only on request. A file appears when it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import partial_path, written_whole


def check_out_file(path: Path, *, endings: Sequence[str], replace: bool = False) -> None:
    """Require that a file can be written, before hours of work are spent on it.

    Args:
        path: The file.
        endings: What its name may end in, such as `.csv`.
        replace: Whether a file that is there may be replaced.

    Raises:
        InvalidInputError: It is a folder or a device, has another ending, its folder does not
            exist, or a file is there that may not be replaced.
        LocalError: Its folder cannot be written.
    """
    with _as_local_error(path):
        if path.is_dir():
            example = path / f"out{endings[0]}"
            raise InvalidInputError(f"{path}: is a folder; name a file in it, as {example}")
        if path.suffix.lower() not in endings:
            allowed = " or ".join(endings)
            raise InvalidInputError(f"{path}: a file that ends in {allowed} is allowed")
        if not path.parent.is_dir():
            raise InvalidInputError(f"{path}: there is no folder {path.parent}")
        # A link that leads nowhere would be replaced, too.
        if (path.exists() or path.is_symlink()) and not path.is_file():
            raise InvalidInputError(f"{path}: is no file that could be replaced")
        if path.exists() and not replace:
            raise InvalidInputError(f"{path}: exists; --force replaces it")
        _try_to_write(path)


@contextmanager
def out_file(path: Path, *, endings: Sequence[str], replace: bool = False) -> Iterator[Path]:
    """A context with a temporary path to write to, which becomes the file on success.

    Args:
        path: The file.
        endings: As for `check_out_file`.
        replace: As for `check_out_file`.

    Raises:
        InvalidInputError: As `check_out_file`.
        LocalError: The file cannot be written.
    """
    check_out_file(path, endings=endings, replace=replace)
    with _as_local_error(path), written_whole(path) as partial:
        yield partial


def check_out_folder(folder: Path, *, new: bool = False) -> None:
    """Require that files can be written into a folder, which may have to be made.

    Args:
        folder: The folder.
        new: Whether it must not exist.

    Raises:
        InvalidInputError: It is a file, the folder that it is to be made in does not exist, or it
            exists and must not.
        LocalError: It cannot be written, or not be made.
    """
    with _as_local_error(folder):
        if new and (folder.exists() or folder.is_symlink()):
            raise InvalidInputError(f"{folder}: exists already; name a folder that does not")
        if folder.is_dir():
            _try_to_write(folder / "out")
            return
        if folder.exists() or folder.is_symlink():
            raise InvalidInputError(f"{folder}: is a file; name a folder")
        if not folder.parent.is_dir():
            raise InvalidInputError(f"{folder}: there is no folder {folder.parent}")
        _try_to_write(folder)


def _try_to_write(path: Path) -> None:
    """Create the temporary file from which this one would be made, and remove it.

    Permissions alone do not tell: a file system may be read-only, and a name too long for it.
    """
    partial = partial_path(path)
    partial.touch(exist_ok=False)
    partial.unlink()


@contextmanager
def _as_local_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise LocalError(f"{path}: cannot be written: {err.strerror or err}") from err
