from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest

from coinml.collection.download import FetchOptions, fetch, is_unreachable, source_url
from coinml.collection.redaction import Redactor
from coinml.errors import (
    CoinmlError,
    CorruptVideoError,
    InvalidInputError,
    LocalError,
    SourceBlockedError,
    TransientError,
    UnavailableError,
)
from coinml.faults.classification import Fault, explain
from coinml.miniature.host import FlakyHost

ID = "-_aB3xyz012"
QUICK = FetchOptions(socket_timeout_s=0.5)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A folder with one real video."""
    folder = tmp_path_factory.mktemp("served")
    make_video(folder / f"{ID}.mp4", seconds=1)
    return folder


def get(host: FlakyHost, folder: Path, options: FetchOptions = QUICK) -> Path:
    fetched = fetch(ID, source_url(host.source, ID), folder, options=options)
    # A plain file has no title of its own.
    assert fetched.title is None
    return fetched.path


def test_a_video_is_downloaded_under_its_id(served: Path, tmp_path: Path) -> None:
    with FlakyHost(served) as host:
        path = get(host, tmp_path)
    assert path == tmp_path / f"{ID}.mp4"
    assert path.read_bytes() == (served / path.name).read_bytes()


class _NamesItsOwnPath(BaseHTTPRequestHandler):
    """A host that suggests a file name in every way that HTTP has."""

    content = b""
    evil = "../../evil.mp4"

    def do_GET(self) -> None:
        if "evil" not in self.path:
            self.send_response(302)
            self.send_header("Location", f"/x/..%2F..%2F{quote(self.evil, safe='')}")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("Content-Disposition", f'attachment; filename="{self.evil}"')
        self.end_headers()
        self.wfile.write(self.content)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    "evil", ["../../evil.mp4", "/tmp/evil.mp4", "..\\\\evil.mp4", "evil.mp4; a=%(id)s"]
)
def test_the_host_cannot_choose_the_path_of_a_file(served: Path, tmp_path: Path, evil: str) -> None:
    content = (served / f"{ID}.mp4").read_bytes()
    handler = type("Handler", (_NamesItsOwnPath,), {"content": content, "evil": evil})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path / "a" / "b" / "c"
    try:
        url = source_url(f"http://127.0.0.1:{server.server_port}/{{id}}.mp4", ID)
        path = fetch(ID, url, folder, options=QUICK).path
    finally:
        server.shutdown()
        server.server_close()
    assert path == folder / f"{ID}.mp4"
    assert path.read_bytes() == content
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_on_data_is_called_with_the_first_bytes(served: Path, tmp_path: Path) -> None:
    told: list[str] = []
    plan = {"videos": {ID: ["404", "ok"]}}
    with FlakyHost(served, plan) as host:
        url = source_url(host.source, ID)
        with pytest.raises(UnavailableError):
            fetch(ID, url, tmp_path, options=QUICK, on_data=lambda: told.append("data"))
        assert told == []
        fetch(ID, url, tmp_path, options=QUICK, on_data=lambda: told.append("data"))
    assert told == ["data"]


# A direct file is requested twice: once to look at its type, once to download it.
@pytest.mark.parametrize(
    ("answers", "kind", "fault"),
    [
        (["404"], UnavailableError, Fault.GONE),
        (["410"], UnavailableError, Fault.GONE),
        (["ok", "404"], UnavailableError, Fault.GONE),
        (["429"], SourceBlockedError, Fault.BLOCKED),
        (["ok", "429"], SourceBlockedError, Fault.BLOCKED),
        (["403"], SourceBlockedError, Fault.BLOCKED),
        (["ok", "403"], SourceBlockedError, Fault.BLOCKED),
        (["500"], TransientError, Fault.TRANSIENT),
        (["503"], TransientError, Fault.TRANSIENT),
        (["ok", "503"], TransientError, Fault.TRANSIENT),
        (["reset"], TransientError, Fault.TRANSIENT),
        (["short"], TransientError, Fault.TRANSIENT),
        (["stall"], TransientError, Fault.TRANSIENT),
        (["empty"], TransientError, Fault.TRANSIENT),
        (["html"], CorruptVideoError, Fault.CORRUPT),
    ],
)
def test_every_failure_has_its_fault(
    served: Path, tmp_path: Path, answers: list[str], kind: type[CoinmlError], fault: Fault
) -> None:
    plan = {"videos": {ID: answers}, "stall_s": 5}
    with FlakyHost(served, plan) as host, pytest.raises(kind) as caught:
        get(host, tmp_path)
    assert explain(caught.value)[0] is fault
    assert explain(caught.value)[1] != "unknown"
    assert not (tmp_path / f"{ID}.mp4").exists()


@pytest.mark.parametrize("answer", ["reset", "short", "stall"])
def test_a_partial_file_is_resumed(served: Path, tmp_path: Path, answer: str) -> None:
    plan = {"videos": {ID: ["ok", answer, "ok"]}, "stall_s": 5}
    with FlakyHost(served, plan) as host:
        with pytest.raises(TransientError):
            get(host, tmp_path)
        partial = tmp_path / f"{ID}.mp4.part"
        assert partial.stat().st_size > 0
        # One byte is changed: it is in the result only if the partial file was resumed.
        content = bytearray(partial.read_bytes())
        content[-1] ^= 0xFF
        partial.write_bytes(content)
        path = get(host, tmp_path)
    whole = (served / path.name).read_bytes()
    assert path.read_bytes()[: len(content)] == content
    assert path.read_bytes()[len(content) :] == whole[len(content) :]


@pytest.mark.parametrize("answers", [["403", "ok"], ["ok", "403", "ok"]])
def test_a_403_gets_one_fresh_extraction(served: Path, tmp_path: Path, answers: list[str]) -> None:
    with FlakyHost(served, {"videos": {ID: answers}}) as host:
        assert get(host, tmp_path).is_file()


def test_the_retry_after_of_a_429_is_read(served: Path, tmp_path: Path) -> None:
    plan = {"source": [{"after_requests": 0, "retry_after_s": 17}]}
    with FlakyHost(served, plan) as host, pytest.raises(SourceBlockedError) as caught:
        get(host, tmp_path)
    assert caught.value.retry_after_s == 17


def test_an_unreachable_host_is_transient(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="refused") as caught:
        fetch(ID, f"http://127.0.0.1:9/{ID}.mp4", tmp_path, options=QUICK)
    assert is_unreachable(caught.value)
    with pytest.raises(TransientError, match="resolve") as caught:
        fetch(ID, f"http://tube.invalid/{ID}.mp4", tmp_path, options=QUICK)
    assert is_unreachable(caught.value)


@pytest.mark.parametrize("answer", ["503", "reset", "stall"])
def test_a_broken_connection_does_not_count_as_unreachable(
    served: Path, tmp_path: Path, answer: str
) -> None:
    plan = {"videos": {ID: [answer]}, "stall_s": 5}
    with FlakyHost(served, plan) as host, pytest.raises(TransientError) as caught:
        get(host, tmp_path)
    assert not is_unreachable(caught.value)


def test_a_folder_that_cannot_be_created_is_a_local_error(served: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with FlakyHost(served) as host, pytest.raises(LocalError):
        get(host, tmp_path / "file")
    assert host.log() == {}


PROXIES = (
    "http://joe:s3cr%40t@127.0.0.1:9",
    "http://joe:s3cr%40t@proxy.invalid:3128",
    "socks5://joe:s3cr%40t@127.0.0.1:9",
    "joe:s3cr%40t@proxy.invalid:3128",
    "http://joe:s3cr%40t@proxy.invalid:notaport",
    "weird://joe:s3cr%40t@proxy.invalid:1",
)
SECRETS = ("s3cr%40t", "s3cr@t", "joe", "127.0.0.1", "proxy.invalid")


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_proxy_is_never_shown(
    tmp_path: Path, proxy: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    options = FetchOptions(proxy=proxy, socket_timeout_s=2)
    with pytest.raises(CoinmlError) as caught:
        fetch(ID, f"http://tube.invalid/{ID}.mp4", tmp_path, options=options)
    logging.getLogger("coinml").error("failed", exc_info=caught.value)
    # The message, the causes in a traceback, and yt-dlp's log.
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(options)
    assert [secret for secret in SECRETS if secret in told] == []
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_host_on_loopback_is_not_asked_through_the_environments_proxy(
    name: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://joe:s3cret@127.0.0.1:9")
    before = dict(os.environ)
    with FlakyHost(served) as host:
        assert get(host, tmp_path).is_file()
    # A library does not change its caller's environment.
    assert dict(os.environ) == before
    with pytest.raises(CoinmlError):
        fetch(ID, f"http://tube.invalid/{ID}.mp4", tmp_path)


@pytest.mark.parametrize("proxy", PROXIES[-2:])
def test_a_malformed_proxy_is_an_input_error(proxy: str) -> None:
    with pytest.raises(InvalidInputError, match="the proxy is not an address") as caught:
        FetchOptions(proxy=proxy).credentials()
    assert [secret for secret in SECRETS if secret in str(caught.value)] == []


def test_redaction_keeps_other_words() -> None:
    redactor = Redactor("http://a:on@proxy.invalid:3128")
    assert redactor.text("a connection to proxy.invalid:3128 as a:on") == (
        "*** connection to *** as ***"
    )
    assert Redactor(None).text("anything") == "anything"


@pytest.mark.parametrize(
    "line", ["session=s3cret", '[{"value": "s3cret"}]', "a\tb\tc\td\tx\tn\ts3cret"]
)
def test_a_malformed_cookies_file_is_refused_without_showing_it(
    tmp_path: Path, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n\n{line}\n")
    with pytest.raises(InvalidInputError, match="line 3: not a line of a Netscape") as caught:
        FetchOptions(cookies=cookies).credentials()
    assert "s3cret" not in str(caught.value) + "".join(capfd.readouterr())


def test_different_credentials_have_different_digests(tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n")
    digests = {
        FetchOptions().credentials(),
        FetchOptions(proxy="http://a:1").credentials(),
        FetchOptions(cookies=cookies).credentials(),
    }
    cookies.write_text("# Netscape HTTP Cookie File\n.example\tTRUE\t/\tFALSE\t0\ta\tb\n")
    digests.add(FetchOptions(cookies=cookies).credentials())
    assert len(digests) == 4
    with pytest.raises(InvalidInputError, match=r"nowhere\.txt"):
        FetchOptions(cookies=tmp_path / "nowhere.txt").credentials()


def test_the_cookies_file_is_not_changed(served: Path, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\ta\tb\n")
    before = cookies.read_bytes()
    with FlakyHost(served) as host:
        get(host, tmp_path / "in", FetchOptions(cookies=cookies))
    assert cookies.read_bytes() == before


@pytest.mark.parametrize(
    "video_id",
    [
        "",
        "short",
        "elevenchar/",
        "../../../aa",
        "aaaaaaaaaa\n",
        "a" * 12,
        "aaaaaaaaaa%",
        "ééééééééééé",
    ],
)
def test_hostile_youtube_ids_are_refused(video_id: str) -> None:
    with pytest.raises(InvalidInputError, match="video id"):
        source_url("https://www.youtube.com/watch?v={id}", video_id)


@pytest.mark.parametrize("video_id", ["..", ".hidden", "a/b", "a b", "a\\b", "x" * 200, "a?b", ""])
def test_hostile_ids_of_other_sources_are_refused(video_id: str) -> None:
    with pytest.raises(InvalidInputError, match="video id"):
        source_url("http://127.0.0.1:1/{id}.mp4", video_id)


@pytest.mark.parametrize("template", ["https://tube/watch", "file:///etc/{id}", "{id}", "-{id}"])
def test_a_source_must_be_an_http_url_with_an_id(template: str) -> None:
    with pytest.raises(InvalidInputError, match="source"):
        source_url(template, ID)


def test_ids_that_look_like_options_are_allowed() -> None:
    assert source_url("https://youtu.be/{id}", "--exec_rm_x") == "https://youtu.be/--exec_rm_x"


YOUTUBE_SAYS = {
    "bot": ("Sign in to confirm you\u2019re not a bot", "blocked"),
    "session": ("Video unavailable. This content isn't available, try again later", "blocked"),
    "age": ("Sign in to confirm your age. This video may be inappropriate", "restricted"),
    "private": ("Private video. Sign in if you've been granted access to this video", "gone"),
    "removed": ("This video has been removed by the uploader", "gone"),
    "country": ("The uploader has not made this video available in your country", "restricted"),
    "members": ("Join this channel to get access to members-only content", "restricted"),
    "live": ("This live event will begin in 2 days.", "unsupported"),
    "formats": ("Requested format is not available", "unsupported"),
    "geo": ("GEO", "restricted"),
    "bug": ("BUG", "unsupported"),
}


def test_errors_that_yt_dlp_raises_for_youtube_are_classified(tmp_path: Path) -> None:
    """yt-dlp raises each through a plugin that handles youtube.com/watch."""
    plugin = tmp_path / "plugin" / "yt_dlp_plugins" / "extractor"
    plugin.mkdir(parents=True)
    (plugin / "faketube.py").write_text(
        textwrap.dedent("""
        import json, os
        from yt_dlp.extractor.common import InfoExtractor
        from yt_dlp.utils import ExtractorError

        class FakeTubeIE(InfoExtractor):
            _VALID_URL = r"https?://www\\.youtube\\.com/watch\\?v=(?P<id>[\\w-]{11})"

            def _real_extract(self, url):
                video_id = self._match_id(url)
                message = json.loads(os.environ["FAKETUBE"])[video_id.strip("_")][0]
                if message == "GEO":
                    self.raise_geo_restricted("not here", countries=["US"])
                if message == "BUG":
                    return self._search_regex("a(b)c", "nothing", "player")
                raise ExtractorError(message, expected=True, video_id=video_id)
    """)
    )
    script = textwrap.dedent("""
        import json, os, pathlib, sys
        from coinml.collection.download import fetch, source_url
        from coinml.errors import CoinmlError
        from coinml.faults.classification import explain
        found = {}
        for name in json.loads(os.environ["FAKETUBE"]):
            video_id = name.ljust(11, "_")
            url = source_url("https://www.youtube.com/watch?v={id}", video_id)
            try:
                fetch(video_id, url, pathlib.Path(sys.argv[1]))
            except CoinmlError as err:
                found[name] = explain(err)[0]
        print(json.dumps(found))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "in")],
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path / "plugin"),
            "FAKETUBE": json.dumps(YOUTUBE_SAYS),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == {name: fault for name, (_, fault) in YOUTUBE_SAYS.items()}
    assert done.stderr == ""
