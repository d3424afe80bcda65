"""What a download continues: real yt-dlp, and the loopback host."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from coinml.collection.download import FetchOptions, fetch, source_url
from coinml.collection.partial_file import PartialFile
from coinml.errors import LocalError, TransientError
from coinml.ledger import DOWNLOADED, Ledger
from coinml.miniature.host import FlakyHost
from tests.helpers.local_collector import LocalCollector, ids
from tests.unit.collection.test_fake_youtube import at_youtube

ID = "video.000001"
QUICK = FetchOptions(socket_timeout_s=0.5)


@pytest.fixture
def served(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    """A folder with one real video, which a test may replace."""
    folder = tmp_path / "served"
    folder.mkdir()
    make_video(folder / f"{ID}.mp4", seconds=1)
    return folder


def get(host: FlakyHost, folder: Path) -> bytes:
    return fetch(ID, source_url(host.source, ID), folder, options=QUICK).path.read_bytes()


def cut(host: FlakyHost, folder: Path) -> Path:
    """Begin a download that the host cuts off; the partial file."""
    with pytest.raises(TransientError):
        get(host, folder)
    partial = folder / f"{ID}.mp4.part"
    assert partial.stat().st_size > 0
    return partial


# The first answer of a download is to a look at the file's type.
CUT = ["ok", "short"]


@pytest.mark.parametrize("extra", [0, 1, 50, 5000])
def test_a_partial_file_as_long_as_the_file_or_longer_is_dropped(
    served: Path, tmp_path: Path, extra: int
) -> None:
    whole = (served / f"{ID}.mp4").read_bytes()
    with FlakyHost(served, {"videos": {ID: [*CUT, "ok"]}}) as host:
        partial = cut(host, tmp_path)
        partial.write_bytes(bytes(len(whole) + extra))
        assert get(host, tmp_path) == whole
        # The length was noted, so that the source need not refuse the range first.
        assert host.log() == {ID: 4}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"{ID}.mp4"]


@pytest.mark.parametrize("cut_to", [1000, 0])
def test_a_partial_file_longer_than_what_the_source_has_now_is_dropped(
    served: Path, tmp_path: Path, cut_to: int
) -> None:
    """The source has a smaller file since: it answers 416, or with all of it."""
    path = served / f"{ID}.mp4"
    with FlakyHost(served, {"videos": {ID: [*CUT, "ok"]}}) as host:
        partial = cut(host, tmp_path)
        begun = partial.stat().st_size
        path.write_bytes(path.read_bytes()[: cut_to or begun])
        assert get(host, tmp_path) == path.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"{ID}.mp4"]


def test_a_source_that_answers_416_to_everything_is_asked_twice(
    served: Path, tmp_path: Path
) -> None:
    with FlakyHost(served, {"videos": {ID: [*CUT, "416"]}}) as host:
        cut(host, tmp_path)
        before = host.log()[ID]
        with pytest.raises(TransientError, match="416"):
            get(host, tmp_path)
        assert host.log()[ID] == before + 2


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(10_000_000)])
def test_a_partial_file_of_unknown_origin_is_not_continued(
    served: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / f"{ID}.mp4.part").write_bytes(content)
    (tmp_path / f"{ID}.mp4.part-Frag3").write_bytes(b"of a fragmented download")
    (tmp_path / f"{ID}.mp4.ytdl").write_text("{}")
    (tmp_path / f"{ID}.webm.part").write_bytes(b"of another extension")
    with FlakyHost(served) as host:
        assert get(host, tmp_path) == (served / f"{ID}.mp4").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [f"{ID}.mp4"]


@pytest.mark.parametrize("answer", ["ignore_range", "wrong_range", "ok"])
def test_whatever_the_source_makes_of_a_range_the_file_is_whole(
    served: Path, tmp_path: Path, answer: str
) -> None:
    with FlakyHost(served, {"videos": {ID: [*CUT, "ok", answer, "ok"]}}) as host:
        cut(host, tmp_path)
        assert get(host, tmp_path) == (served / f"{ID}.mp4").read_bytes()


def changed(content: bytes) -> bytes:
    """Other content of the same length."""
    return bytes(byte ^ 0xFF for byte in content)


def test_a_file_that_changed_at_the_source_is_not_continued(served: Path, tmp_path: Path) -> None:
    """The host answers If-Range, and sends all of the changed file."""
    path = served / f"{ID}.mp4"
    with FlakyHost(served, {"videos": {ID: [*CUT, "ok"]}}) as host:
        cut(host, tmp_path)
        path.write_bytes(changed(path.read_bytes()))
        assert get(host, tmp_path) == path.read_bytes()


class _Plain(BaseHTTPRequestHandler):
    """A host that knows ranges, but neither If-Range nor a planned fault."""

    content = b""
    headers_of_version: tuple[tuple[str, str], ...] = ()
    breaks = False

    def do_GET(self) -> None:
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        if start >= len(self.content):
            self.send_error(416)
            return
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(body)))
        if start:
            total = len(self.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        for name, value in self.headers_of_version:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.breaks else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "versions",
    [
        [(("ETag", '"a"'),), (("ETag", '"b"'),)],
        [(("ETag", 'W/"a"'),), (("ETag", 'W/"b"'),)],
        [
            (("Last-Modified", "Fri, 02 Jan 2026 00:00:00 GMT"),),
            (("Last-Modified", "Sat, 03 Jan 2026 00:00:00 GMT"),),
        ],
        # Only the length tells.
        [(), ()],
        # It has fewer bytes than have arrived, and answers 416 to the range.
        [(("ETag", '"a"'), ("X-Smaller", "yes")), ()],
    ],
)
def test_a_changed_version_is_noticed_where_the_source_goes_on_regardless(
    served: Path, tmp_path: Path, versions: list[tuple[tuple[str, str], ...]]
) -> None:
    first = (served / f"{ID}.mp4").read_bytes()
    second = changed(first) + (b"" if versions[0] else b"longer")
    if len(versions[0]) == 2:
        second = second[:100]
    handler = type("Handler", (_Plain,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{ID}.mp4"
    try:
        handler.content, handler.headers_of_version, handler.breaks = first, versions[0], True
        with pytest.raises(TransientError):
            fetch(ID, url, tmp_path, options=QUICK)
        assert (tmp_path / f"{ID}.mp4.part").stat().st_size == len(first) // 2
        handler.content, handler.headers_of_version, handler.breaks = second, versions[1], False
        assert fetch(ID, url, tmp_path, options=QUICK).path.read_bytes() == second
    finally:
        server.shutdown()
        server.server_close()


def test_another_source_does_not_continue_the_partial_file(served: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    whole = changed((served / f"{ID}.mp4").read_bytes())
    (other / f"{ID}.mp4").write_bytes(whole)
    with (
        FlakyHost(served, {"videos": {ID: CUT}}) as first,
        FlakyHost(other, {"videos": {ID: ["ok", "ignore_range"]}}) as second,
    ):
        cut(first, tmp_path)
        assert get(second, tmp_path) == whole


@pytest.mark.parametrize("other", ["avc144", "both360"])
def test_another_format_does_not_continue_the_partial_file(
    tmp_path: Path, make_video: Callable[..., Path], other: str
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    make_video(folder / "avc360.mp4", seconds=1)
    whole = changed((folder / "avc360.mp4").read_bytes())
    (folder / f"{other}.mp4").write_bytes(whole)
    script = """
        import json, os, pathlib, sys
        from coinml.collection.download import fetch, source_url
        from coinml.errors import TransientError
        url = source_url("https://www.youtube.com/watch?v={id}", "-_dangerous")
        folder = pathlib.Path(sys.argv[1])
        try:
            fetch("-_dangerous", url, folder)
        except TransientError:
            print((folder / "-_dangerous.mp4.part").stat().st_size)
        tube = json.loads(os.environ["FAKETUBE"])
        os.environ["FAKETUBE"] = json.dumps(tube | {"formats": [sys.argv[2]]})
        fetch("-_dangerous", url, folder)
    """
    with FlakyHost(folder, {"videos": {"avc360": ["short"]}}) as host:
        said = at_youtube(
            tmp_path,
            script,
            str(tmp_path / "in"),
            other,
            url=host.source,
            formats=("avc360", other) if other == "avc144" else ("avc360",),
            by_format=True,
        )
    assert int(said) == len(whole) // 2
    assert (tmp_path / "in" / "-_dangerous.mp4").read_bytes() == whole
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["-_dangerous.mp4"]


def test_files_of_other_ids_are_not_dropped(tmp_path: Path) -> None:
    mine = ["a.mp4.part", "a.webm.part", "a.mp4.ytdl", "a.mp4.part-Frag1", "a.mp4.part-Frag1.part"]
    others = [
        "a.b.mp4.part",
        "a.mp4.mp4.part",
        "aa.mp4.part",
        "a.b.partial.json",
        "a.mp4",
        "-a.mp4",
    ]
    for name in [*mine, "a.partial.json", *others]:
        (tmp_path / name).write_bytes(b"12")
    assert PartialFile(tmp_path, "a").size_bytes == 2 * len(mine)
    PartialFile(tmp_path, "a").drop()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"format": 1, "length": "x"}', b"\xff"])
def test_a_damaged_note_drops_the_partial_file(served: Path, tmp_path: Path, note: bytes) -> None:
    with FlakyHost(served, {"videos": {ID: [*CUT, "ok"]}}) as host:
        partial = cut(host, tmp_path)
        partial.write_bytes(b"junk")
        (tmp_path / f"{ID}.partial.json").write_bytes(note)
        assert get(host, tmp_path) == (served / f"{ID}.mp4").read_bytes()


def test_partial_files_left_by_killed_runs_are_collected(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    """As long as the file, longer, empty, and with junk in its middle: all in one run."""
    folder = tmp_path / "served"
    folder.mkdir()
    some = ids(4)
    whole = make_video(folder / "video.mp4", seconds=0.4).read_bytes()
    for video_id in some:
        os.link(folder / "video.mp4", folder / f"{video_id}.mp4")
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    collector = LocalCollector(url, tmp_path / "videos", folder)
    collector.register(4)
    incoming = collector.folder / ".incoming"
    plan = {"videos": {one: [*CUT, *CUT, *CUT, *CUT, "ok"] for one in some}}
    with FlakyHost(folder, plan) as host:
        collector.run(host, some, "first")
        assert set(collector.states().values()) == {"transient"}
        notes = [json.loads((incoming / f"{one}.partial.json").read_text()) for one in some]
        assert {note["length"] for note in notes} == {len(whole)}
        # The last one cannot be told from a good one before it is decoded.
        for video_id, content in zip(
            some, (whole, whole + bytes(5000), b"", bytes(len(whole) - 10)), strict=True
        ):
            (incoming / f"{video_id}.mp4.part").write_bytes(content)
        collector.run(host, some, "second", retry_now=True)
    assert collector.states() == dict.fromkeys(some, DOWNLOADED)
    collector.assert_consistent()
    assert list(incoming.iterdir()) == []
    with Ledger(url) as ledger:
        outcomes = [one.outcome for one in ledger.attempts("mini", some[3])[-2:]]
    assert outcomes == ["corrupt", DOWNLOADED]


def test_a_partial_file_that_cannot_be_deleted_is_a_problem_of_this_machine(
    served: Path, tmp_path: Path
) -> None:
    """A folder of its name, since permissions do not bind the superuser."""
    (tmp_path / f"{ID}.mp4.part").mkdir()
    with FlakyHost(served) as host, pytest.raises(LocalError, match="directory"):
        get(host, tmp_path)
