"""Copying one video from a folder or bucket of copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from coinml.collection.download import UNREACHABLE, Fetched, is_unreachable
from coinml.collection.download_limits import Limits
from coinml.collection.sources import Source
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import CoinmlError
from coinml.faults.classification import Fault, as_error, explain

_CHUNK_BYTES = 4 << 20


def copy_video(
    video_id: str,
    source: Source,
    folder: Path,
    *,
    limits: Limits | None = None,
    on_data: Callable[[], None] | None = None,
    on_arrival: Callable[[], None] | None = None,
) -> Fetched:
    """Copy one video to `folder/<id>.<ext>`.

    Where the source names no file ending, the file's is looked for.

    Args:
        video_id: Becomes the file's name; checked by `Source.url`.
        source: A folder or a bucket.
        folder: For unfinished files; not the folder of finished ones.
        limits: How much may be copied, and how long that may take; None: no limits.
        on_data: Called once, when the first bytes have arrived.
        on_arrival: Called whenever something has been copied.

    Raises:
        TransientError, SourceBlockedError, UnavailableError, LocalError: According to the
            failure's fault.
    """
    url = source.url(video_id)
    exact = "{id}" in source.template
    paths = [url] if exact else [url + ending for ending in VIDEO_ENDINGS]
    place = _Folder(source) if source.is_folder else _Bucket(source)
    deadline = time.monotonic() + (limits.time_s if limits is not None else 0.0)

    def arrived(size_bytes: int) -> None:
        if limits is not None:
            limits.check(size_bytes, deadline)
        if on_arrival is not None:
            on_arrival()

    for path in paths:
        with _reading(path):
            content = place.open(path)
        if content is None:
            continue
        with content:
            target = _store(content, path, folder / _file_name(video_id, path), on_data, arrived)
        return Fetched(path=target, title=None, url=None if exact else path)
    with _reading(url):
        place.check()
    raise as_error(Fault.GONE, f"{source.name} has no file of this video", rule="no copy")


class _Folder:
    """A folder of this machine, which may be a mounted disk of another one."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def open(self, path: str) -> IO[bytes] | None:
        """The file, or None if there is none."""
        # Opening a pipe would wait for its other end.
        return Path(path).open("rb") if Path(path).is_file() else None

    def check(self) -> None:
        """Raise an error if not only the file is missing: a disk that is not mounted."""
        if not self._source.folder.is_dir():
            text = f"there is no folder {self._source.folder}"
            raise as_error(Fault.TRANSIENT, text, rule=UNREACHABLE)


class _Bucket:
    """A bucket, or any other file system that fsspec knows."""

    def __init__(self, source: Source) -> None:
        import fsspec

        self._filesystem: Any
        try:
            # Some drivers connect here, or look for the keys.
            self._filesystem, _ = fsspec.core.url_to_fs(source.template)
        except Exception as err:
            text = f"{source.name}: {str(err) or type(err).__name__}"
            raise as_error(Fault.TRANSIENT, text, rule=UNREACHABLE) from err

    def open(self, path: str) -> Any:
        """The file, or None if there is none."""
        try:
            return self._filesystem.open(path, "rb", block_size=_CHUNK_BYTES)
        except FileNotFoundError as err:
            if "bucket does not exist" in str(err):
                raise as_error(Fault.TRANSIENT, str(err), rule=UNREACHABLE) from err
            return None

    def check(self) -> None:
        """Nothing: a bucket that cannot be reached has failed before."""


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Within it, an error is one of the source, not of this machine."""
    try:
        yield
    except CoinmlError:
        raise
    except PermissionError as err:
        failure = as_error(Fault.BLOCKED, f"{path}: permission denied", rule="copy")
        # As after a 403: the first refusals may concern this file alone.
        vars(failure).update(status=403)
        raise failure from err
    except Exception as err:
        # Drivers raise the errors of their libraries: botocore's are no `OSError`.
        names = {kind.__name__ for one in (err, err.__cause__) for kind in type(one).__mro__}
        offline = is_unreachable(err) or any(
            word in name for name in names for word in ("Connect", "Credential")
        )
        fault = explain(err)[0] if not isinstance(err, OSError) else Fault.TRANSIENT
        text = f"{path}: {str(err) or type(err).__name__}"
        if offline or fault is Fault.LOCAL:
            fault = Fault.TRANSIENT
        raise as_error(fault, text, rule=UNREACHABLE if offline else "copy") from err


def _file_name(video_id: str, path: str) -> str:
    ending = PurePosixPath(path).suffix.lower()
    return video_id + (ending if ending in VIDEO_ENDINGS else VIDEO_ENDINGS[0])


def _store(
    content: IO[bytes],
    path: str,
    target: Path,
    on_data: Callable[[], None] | None,
    arrived: Callable[[int], None],
) -> Path:
    # One name a video, whatever the ending: what a killed process has left is overwritten.
    unfinished = target.with_suffix(".copy")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            while True:
                with _reading(path):
                    chunk = content.read(_CHUNK_BYTES)
                if not chunk:
                    break
                file.write(chunk)
                arrived(file.tell())
                if on_data is not None:
                    on_data()
                    on_data = None
        unfinished.replace(target)
    except OSError as err:
        raise as_error(Fault.LOCAL, f"{target}: {err.strerror}", rule="errno") from err
    finally:
        unfinished.unlink(missing_ok=True)
    return target
