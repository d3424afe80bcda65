"""No download takes more space or time than its annotated length allows: real yt-dlp."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import ValidationError

from coinml.collection import batch, download_limits
from coinml.collection.download import FetchOptions, fetch, source_url
from coinml.collection.download_limits import Limits
from coinml.collection.options import CollectOptions
from coinml.data.records import Dataset, Video
from coinml.errors import CoinmlError, InvalidInputError, TransientError, UnavailableError
from coinml.faults.classification import Fault, explain
from coinml.ledger import DOWNLOADED
from coinml.miniature.host import FlakyHost
from tests.helpers.local_collector import LocalCollector, ids
from tests.unit.collection.test_fake_youtube import at_youtube

ID = "video000001"
SMALL = FetchOptions(socket_timeout_s=0.5, max_mb_per_s=1, max_minutes=1)


@pytest.fixture
def served(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    make_video(folder / f"{ID}.mp4", seconds=1)
    return folder


@pytest.fixture(autouse=True)
def _small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    # The bodies of these tests are small.
    monkeypatch.setattr(download_limits, "SIZE_FLOOR_BYTES", 100_000)


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def test_the_limits_follow_the_annotated_length() -> None:
    def limits(duration_s: float | None, rate: int | None = None) -> tuple[int, float]:
        found = Limits.of(duration_s, max_mb_per_s=2, max_minutes=3, rate_limit_bytes=rate)
        return found.size_bytes, found.time_s

    assert limits(60) == (100_000 + 120_000_000, 180 + 600)
    assert limits(None) == limits(600)
    # A limited bandwidth leaves the largest file the time that it needs.
    assert limits(60, 1_000_000)[1] == pytest.approx(180 + 600 + 120.1)


@pytest.mark.parametrize("answers", [["endless"], ["ok", "endless"]])
def test_an_endless_body_is_stopped_while_it_arrives(
    served: Path, tmp_path: Path, answers: list[str]
) -> None:
    with (
        FlakyHost(served, {"videos": {ID: answers}}) as host,
        pytest.raises(UnavailableError, match=r"larger than 1 MB.*max-mb-per-s") as caught,
    ):
        fetch(ID, source_url(host.source, ID), tmp_path, options=SMALL, duration_s=1)
    assert explain(caught.value) == (Fault.UNSUPPORTED, "too large")
    assert files(tmp_path) == []


def test_a_body_of_unknown_length_within_the_limits_is_whole(served: Path, tmp_path: Path) -> None:
    with FlakyHost(served, {"videos": {ID: ["unsized"]}}) as host:
        fetched = fetch(ID, source_url(host.source, ID), tmp_path, options=SMALL, duration_s=1)
    assert fetched.path.read_bytes() == (served / f"{ID}.mp4").read_bytes()


def test_a_file_that_says_that_it_is_too_large_is_not_begun(served: Path, tmp_path: Path) -> None:
    (served / f"{ID}.mp4").write_bytes(bytes(200_000))
    arrived: list[bool] = []
    with FlakyHost(served) as host, pytest.raises(UnavailableError, match="larger than 0 MB"):
        fetch(
            ID,
            source_url(host.source, ID),
            tmp_path,
            options=FetchOptions(max_mb_per_s=0.001),
            duration_s=1,
            on_data=lambda: arrived.append(True),
        )
    assert (arrived, files(tmp_path)) == ([], [])


def test_what_arrived_in_an_earlier_attempt_counts(served: Path, tmp_path: Path) -> None:
    """The first attempt brings 100 kB, and the second would bring as many again and more."""
    path = served / f"{ID}.mp4"
    path.write_bytes(path.read_bytes() + bytes(200_000))
    options = FetchOptions(socket_timeout_s=0.5, max_mb_per_s=0.05)
    with FlakyHost(served, {"videos": {ID: ["ok", "short", "endless"]}}) as host:
        url = source_url(host.source, ID)
        with pytest.raises(TransientError):
            fetch(ID, url, tmp_path, options=options, duration_s=10)
        assert (tmp_path / f"{ID}.mp4.part").stat().st_size > 90_000
        with pytest.raises(UnavailableError, match="larger than"):
            fetch(ID, url, tmp_path, options=options, duration_s=10)
    assert files(tmp_path) == []


@pytest.mark.parametrize("answers", [["drip"], ["ok", "drip"]])
def test_a_dripping_server_is_stopped_by_the_time_limit(
    served: Path, tmp_path: Path, answers: list[str]
) -> None:
    plan = {"videos": {ID: answers}, "drip_s": 0.05}
    options = FetchOptions(socket_timeout_s=5, max_minutes=0.01)
    with (
        FlakyHost(served, plan) as host,
        pytest.raises(TransientError, match=r"not downloaded in 2 s.*max-minutes") as caught,
    ):
        fetch(ID, source_url(host.source, ID), tmp_path, options=options, duration_s=0.1)
    assert explain(caught.value) == (Fault.TRANSIENT, "too slow")
    assert not (tmp_path / f"{ID}.mp4").exists()


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
@pytest.mark.parametrize("name", ["max_mb_per_s", "max_minutes"])
def test_limits_are_finite_and_positive(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        CollectOptions.model_validate({name: value})
    with pytest.raises(InvalidInputError, match=f"{name} must be finite and positive"):
        FetchOptions(**{name: value})


class _Endless(BaseHTTPRequestHandler):
    """Answers without an end: a page, a refusal, a playlist, or its second segment."""

    kind = "text/html"
    chunk = b"<p>" * 1000
    status = 200
    playlist = b""

    def do_GET(self) -> None:
        if self.playlist and self.path.endswith(".m3u8"):
            self._head("application/vnd.apple.mpegurl", len(self.playlist))
            self.wfile.write(self.playlist)
            return
        if self.path.endswith("first.ts"):
            self._head("video/mp2t", 1000)
            self.wfile.write(b"G" * 1000)
            return
        self._head(self.kind, None)
        try:
            for _ in range(100_000):
                self.wfile.write(self.chunk)
        except OSError:
            pass

    def _head(self, kind: str, length: int | None) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(**attributes: Any) -> Iterator[str]:
    handler = type("Handler", (_Endless,), attributes)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{ID}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("ending", "attributes"),
    [
        ("", {"kind": "text/html"}),
        (".mpd", {"kind": "application/dash+xml"}),
        (".m3u8", {"kind": "application/vnd.apple.mpegurl", "chunk": b"#EXTM3U\n" * 500}),
        (
            ".m3u8",
            {
                "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfirst.ts\n"
                b"#EXTINF:1,\nsecond.ts\n#EXT-X-ENDLIST\n"
            },
        ),
    ],
    ids=["page", "manifest", "playlist", "segment"],
)
def test_pages_manifests_and_segments_count(
    tmp_path: Path, ending: str, attributes: dict[str, Any]
) -> None:
    with (
        serving(**attributes) as url,
        pytest.raises(UnavailableError, match="larger than 1 MB"),
    ):
        fetch(ID, url + ending, tmp_path, options=SMALL, duration_s=1)
    assert files(tmp_path) == []


def test_the_body_of_a_refusal_is_not_read(tmp_path: Path) -> None:
    with serving(status=404) as url, pytest.raises(CoinmlError) as caught:
        fetch(ID, url + ".mp4", tmp_path, options=SMALL, duration_s=1)
    assert explain(caught.value)[0] is Fault.GONE


def test_a_stream_that_only_ffmpeg_could_download_is_unsupported(tmp_path: Path) -> None:
    """ffmpeg's process would read without a limit; it is the video that is refused."""
    playlist = (
        b'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=SAMPLE-AES,URI="key"\n'
        b"#EXTINF:1,\nfirst.ts\n#EXT-X-ENDLIST\n"
    )
    with serving(playlist=playlist) as url, pytest.raises(UnavailableError) as caught:
        fetch(ID, url + ".m3u8", tmp_path, options=SMALL, duration_s=1)
    assert explain(caught.value)[0] is Fault.UNSUPPORTED
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({"live_status": "is_live"}, "it is a live stream"),
        ({"is_live": True}, "it is a live stream"),
        ({"live_status": "is_upcoming"}, "has not begun"),
        ({"live_status": "post_live"}, "has just ended"),
        ({"live_status": "was_live"}, None),
        ({"live_status": "not_live"}, None),
    ],
)
def test_live_streams_are_refused(
    served: Path, tmp_path: Path, status: dict[str, Any], says: str | None
) -> None:
    script = """
        import pathlib, sys
        from coinml.collection.download import fetch, source_url
        from coinml.errors import CoinmlError
        from coinml.faults.classification import explain
        url = source_url("https://www.youtube.com/watch?v={id}", "video000001")
        try:
            fetch("video000001", url, pathlib.Path(sys.argv[1]))
        except CoinmlError as err:
            print(*explain(err), err, sep="|")
    """
    with FlakyHost(served) as host:
        told = at_youtube(
            tmp_path,
            script,
            str(tmp_path / "in"),
            url=host.source,
            info=status,
        )
        asked = host.log()
    if says is None:
        assert (told, set(asked)) == ("", {ID})
    else:
        assert told.startswith("unsupported|live|it is a live stream")
        assert says in told
        assert asked == {}


@pytest.fixture
def collector(served: Path, tmp_path: Path) -> LocalCollector:
    for video_id in ids(3):
        (served / f"{video_id}.mp4").write_bytes((served / f"{ID}.mp4").read_bytes())
    return LocalCollector(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "videos", served)


def videos_of(*some: str) -> Dataset:
    return Dataset(
        name="mini",
        videos=tuple(
            Video(video_id=one, label="saw", subset="training", split="train", duration_s=0.1)
            for one in some
        ),
    )


def test_the_ledger_says_what_was_stopped_and_when_it_is_tried_again(
    collector: LocalCollector,
) -> None:
    first, second, third = ids(3)
    collector.ledger.register(videos_of(first, second, third))
    sized = FetchOptions(socket_timeout_s=5, max_mb_per_s=1)
    with FlakyHost(collector.served, {"videos": {first: ["ok", "endless"]}}) as host:
        collector.run(host, [first, third], options=sized)
        # One attempt each: the first is not tried again in this run.
        assert host.log() == {first: 2, third: 2}
    timed = FetchOptions(socket_timeout_s=5, max_minutes=0.01)
    plan = {"videos": {second: ["ok", "drip"]}, "drip_s": 0.05}
    with FlakyHost(collector.served, plan) as host:
        collector.run(host, [second], options=timed)
        assert host.log() == {second: 2}
    assert collector.states() == {first: "unsupported", second: "transient", third: DOWNLOADED}
    rows = {row.video_id: row for row in collector.ledger.rows("mini")}
    assert rows[first].next_attempt_at is None
    assert rows[second].next_attempt_at is not None
    assert "larger than 0 MB" in (rows[first].message or "")
    assert "not downloaded in 2 s" in (rows[second].message or "")
    assert not any(path.name.startswith(first) for path in collector.folder.rglob("*"))


def test_a_copy_from_a_folder_has_the_same_limits(
    collector: LocalCollector, tmp_path: Path
) -> None:
    large, small = ids(2)
    collector.ledger.register(videos_of(large, small))
    copies = tmp_path / "copies"
    copies.mkdir()
    whole = (collector.served / f"{small}.mp4").read_bytes()
    (copies / f"{small}.mp4").write_bytes(whole)
    (copies / f"{large}.mp4").write_bytes(bytes(500_000))
    with FlakyHost(collector.served) as host:
        options = FetchOptions(max_mb_per_s=1)
        collector.run(host, [large, small], source=str(copies), options=options)
    assert collector.states() == {large: "unsupported", small: DOWNLOADED}
    assert "larger than 0 MB" in (collector.ledger.row("mini", large).message or "")
    assert not any(path.name.startswith(large) for path in collector.folder.rglob("*"))


def test_what_a_source_has_begun_is_dropped_when_another_brings_the_video(
    collector: LocalCollector, tmp_path: Path
) -> None:
    (video_id,) = ids(1)
    collector.ledger.register(videos_of(video_id))
    copies = tmp_path / "copies"
    copies.mkdir()
    whole = (collector.served / f"{video_id}.mp4").read_bytes()
    (copies / f"{video_id}.mp4").write_bytes(whole)
    with FlakyHost(collector.served, {"videos": {video_id: ["ok", "short"]}}) as host:
        collector.run(host, [video_id], source=[host.source, str(copies)])
    assert collector.states() == {video_id: DOWNLOADED}
    assert list((collector.folder / ".incoming").iterdir()) == []


def test_the_lease_is_renewed_while_a_video_arrives(
    collector: LocalCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another host sees it, which cannot tell whether the process is alive."""
    monkeypatch.setattr(batch, "LEASE_S", 3.0)
    (video_id,) = ids(1)
    collector.ledger.register(videos_of(video_id))
    plan = {"videos": {video_id: ["ok", "slow"]}, "slow_s": 8}
    with FlakyHost(collector.served, plan) as host:
        thread = Thread(target=collector.run, args=(host, [video_id]))
        thread.start()
        claimed: list[str] = []
        while thread.is_alive():
            if host.log().get(video_id) == 2:
                claimed += collector.ledger.claim("mini", [video_id], owner="elsewhere")
            thread.join(0.2)
    assert claimed == []
    assert collector.states() == {video_id: DOWNLOADED}
