"""Arguments for yt-dlp's extractors: they arrive, and their values are shown nowhere."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path

import pytest
import yt_dlp

from coinml.collection.download import FetchOptions, fetch
from coinml.collection.extractor_arguments import parse_extractor_args
from coinml.errors import CoinmlError, InvalidInputError

TOKEN = "Zq7vK1xwHn4tR8ye"
SETTING = (
    rf"youtube:player-client=web,mweb;po_token=mweb.gvs+{TOKEN};lang=a\,b "
    f"youtubepot-bgutilhttp:base_url=http://127.0.0.1:9/{TOKEN}"
)


def test_they_are_read_as_by_ytdlp() -> None:
    command = ["--ignore-config"]
    for part in SETTING.split():
        command += ["--extractor-args", part]
    assert parse_extractor_args(SETTING) == yt_dlp.parse_options(command).ydl_opts["extractor_args"]
    assert parse_extractor_args("") == {}


@pytest.mark.parametrize(
    "text", [TOKEN, f"youtube: {TOKEN}", f"youtube:{TOKEN} x=1", f":a={TOKEN}"]
)
def test_another_form_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(InvalidInputError, match="COINML_YTDLP_EXTRACTOR_ARGS, part") as caught:
        FetchOptions(extractor_args=text).credentials()
    assert TOKEN not in str(caught.value)


# A plugin in place of YouTube's extractor, since these tests must not ask YouTube. It reads its
# arguments as YouTube's own does, and fails with them in the message.
PLUGIN = (
    textwrap.dedent("""
    from yt_dlp.extractor.common import InfoExtractor
    from yt_dlp.utils import ExtractorError

    class YoutubeIE(InfoExtractor):
        _VALID_URL = r"https?://www\\\\.youtube\\\\.com/watch\\\\?v=(?P<id>[\\\\w-]{11})"

        def _real_extract(self, url):
            told = [
                self._configuration_arg(key, casesense=True)
                for key in ("player_client", "po_token")
            ]
            if told != [["web", "mweb"], ["mweb.gvs+%s"]]:
                raise ExtractorError("the arguments did not arrive", expected=True)
            self.write_debug(f"told {told}")
            raise ExtractorError(f"they arrived: {told}", expected=True)
""").replace("\\\\", "\\")
    % TOKEN
)

FETCH = textwrap.dedent("""
    import logging, pathlib, sys, traceback
    from coinml.collection.download import FetchOptions, fetch
    from coinml.errors import CoinmlError
    logging.basicConfig(level="DEBUG", stream=sys.stdout)
    options = FetchOptions(extractor_args=sys.argv[1])
    try:
        fetch("aaaaaaaaaaa", "https://www.youtube.com/watch?v=aaaaaaaaaaa",
              pathlib.Path(sys.argv[2]), options=options)
    except CoinmlError:
        traceback.print_exc(file=sys.stdout)
    print(repr(options))
""")


def test_they_arrive_at_the_extractor_and_are_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "yt_dlp_plugins" / "extractor"
    folder.mkdir(parents=True)
    (folder / "asking.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-c", FETCH, SETTING, str(tmp_path / "incoming")],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "they arrived: [['web', 'mweb'], ['***']]" in done.stdout, done.stdout
    assert TOKEN not in done.stdout + done.stderr


def test_the_arguments_are_in_a_real_youtubedl() -> None:
    """YouTube's own extractor sees them: yt-dlp's Python API, nothing replaced."""
    with yt_dlp.YoutubeDL({"extractor_args": parse_extractor_args(SETTING)}) as ydl:
        extractor = ydl.get_info_extractor("Youtube")
        assert extractor._configuration_arg("po_token", casesense=True) == [f"mweb.gvs+{TOKEN}"]


def test_a_failure_shows_no_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    url = f"http://127.0.0.1:9/{TOKEN}.mp4"
    with pytest.raises(CoinmlError) as caught:
        fetch("video", url, tmp_path, options=FetchOptions(extractor_args=SETTING))
    logging.getLogger("coinml").error("failed", exc_info=caught.value)
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert TOKEN not in told
