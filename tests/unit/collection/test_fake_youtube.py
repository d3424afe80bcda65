"""Real yt-dlp with a plugin that handles youtube.com/watch and serves from loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost

PLUGIN = textwrap.dedent("""
    import json, os
    from yt_dlp.extractor.common import InfoExtractor
    from yt_dlp.utils import ExtractorError

    FORMATS = {
        "both360": {"vcodec": "avc1.42001E", "acodec": "mp4a.40.2", "height": 360, "tbr": 500},
        "avc360": {"vcodec": "avc1.4d401e", "acodec": "none", "height": 360, "tbr": 400},
        "av1360": {"vcodec": "av01.0.01M.08", "acodec": "none", "height": 360, "tbr": 300},
        "vp9360": {"vcodec": "vp9", "acodec": "none", "height": 360, "tbr": 350},
        "avc144": {"vcodec": "avc1.4d400c", "acodec": "none", "height": 144, "tbr": 80},
        "avc1080": {"vcodec": "avc1.640028", "acodec": "none", "height": 1080, "tbr": 4000},
        "sound": {"vcodec": "none", "acodec": "mp4a.40.2", "tbr": 128},
    }

    class FakeTubeIE(InfoExtractor):
        _VALID_URL = r"https?://www\\.youtube\\.com/watch\\?v=(?P<id>[\\w-]{11})"

        def _real_extract(self, url):
            video_id = self._match_id(url)
            tube = json.loads(os.environ["FAKETUBE"])
            said = tube["says"].get(video_id)
            if said:
                raise ExtractorError(said, expected=True, video_id=video_id)
            names = tube["formats"]
            return {
                "id": video_id, "title": "../../--exec rm {} %(id)s", **tube["info"],
                "formats": [
                    {"format_id": name, "ext": "mp4", **FORMATS[name],
                     "url": tube["url"].replace("{id}", name if tube["by_format"] else video_id)}
                    for name in names
                ],
            }
""")
ALL = ("both360", "avc360", "av1360", "vp9360", "avc144", "avc1080", "sound")


def at_youtube(tmp_path: Path, script: str, *arguments: str, **tube: Any) -> str:
    """Run Python with the plugin on its path; return its stdout."""
    folder = tmp_path / "plugin" / "yt_dlp_plugins" / "extractor"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faketube.py").write_text(PLUGIN)
    tube = {"says": {}, "formats": ALL, "by_format": False, "info": {}} | tube
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "plugin"), "FAKETUBE": json.dumps(tube)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


COLLECT = """
    import sys
    from dataclasses import replace
    from coinml.collection.collector import SourcePausedError, collect
    from coinml.faults.classification import POLICY, Fault
    from coinml.ledger import Ledger
    POLICY[Fault.TRANSIENT] = replace(POLICY[Fault.TRANSIENT], delays_in_run_s=(0.01,))
    url, folder = sys.argv[1:]
    try:
        collect(
            url, "tube", Ledger.shared(url).due("tube"), run_id="r", folder=folder,
            source="https://www.youtube.com/watch?v={id}", max_wait_s=1,
        )
    except SourcePausedError as err:
        print(err)
"""


def registered(folder: Path, ids: list[str]) -> str:
    """A ledger with these videos; its URL."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    videos = tuple(
        Video(video_id=one, label="saw", subset="training", split="train") for one in ids
    )
    with Ledger(url) as ledger:
        ledger.register(Dataset(name="tube", videos=videos))
    return url


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A real video for each format, and for each of ten ids."""
    folder = tmp_path_factory.mktemp("served")
    first = make_video(folder / "video.mp4", seconds=0.4)
    for name in (*ALL, *(f"video{number:06d}" for number in range(10))):
        os.link(first, folder / f"{name}.mp4")
    return folder


@pytest.mark.parametrize(
    ("formats", "height", "taken"),
    [
        (ALL, 360, "avc360"),
        (ALL, 1080, "avc1080"),
        (ALL, 240, "avc144"),
        (("both360", "av1360", "vp9360", "sound"), 360, "both360"),
        (("av1360", "vp9360", "avc1080", "sound"), 360, "vp9360"),
        (("av1360", "avc1080", "sound"), 360, "av1360"),
        (("avc1080", "sound"), 360, "avc1080"),
    ],
)
def test_low_resolution_h264_without_audio_is_preferred(
    served: Path, tmp_path: Path, formats: tuple[str, ...], height: int, taken: str
) -> None:
    script = """
        import pathlib, sys
        from coinml.collection.download import FetchOptions, fetch, source_url
        url = source_url("https://www.youtube.com/watch?v={id}", "-_dangerous")
        options = FetchOptions(max_height=int(sys.argv[2]))
        fetched = fetch("-_dangerous", url, pathlib.Path(sys.argv[1]), options=options)
        print(fetched.path, fetched.title, sep="\\n")
    """
    with FlakyHost(served) as host:
        said = at_youtube(
            tmp_path,
            script,
            str(tmp_path / "in"),
            str(height),
            url=host.source,
            formats=formats,
            by_format=True,
        )
        assert set(host.log()) == {taken}
    # The title does not affect the path.
    path, title = said.splitlines()
    assert title == "../../--exec rm {} %(id)s"
    assert Path(path) == tmp_path / "in" / "-_dangerous.mp4"
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["-_dangerous.mp4"]


def test_messages_of_youtube_are_recorded_with_their_faults(served: Path, tmp_path: Path) -> None:
    ids = [f"video{number:06d}" for number in range(10)]
    says = {
        ids[3]: "Private video. Sign in if you've been granted access to this video",
        ids[4]: "Video unavailable. This video has been removed by the uploader",
        ids[5]: "Sign in to confirm your age. This video may be inappropriate for some users.",
        ids[6]: "The uploader has not made this video available in your country",
        ids[7]: "This live event will begin in 3 hours.",
        ids[8]: "something that nobody has ever said",
    }
    url = registered(tmp_path, ids)
    with FlakyHost(served) as host:
        at_youtube(tmp_path, COLLECT, url, str(tmp_path / "videos"), url=host.source, says=says)
        asked = host.log()
    with Ledger(url) as ledger:
        states = {row.video_id: row.state for row in ledger.rows("tube")}
        unknown = {attempt.video_id for attempt in ledger.unknown("tube")}
    here = {*ids[:3], ids[9]}
    assert states == dict.fromkeys(here, "downloaded") | {
        ids[3]: "gone",
        ids[4]: "gone",
        ids[5]: "restricted",
        ids[6]: "restricted",
        ids[7]: "unsupported",
        ids[8]: "transient",
    }
    assert set(asked) == here
    assert unknown == {ids[8]}


@pytest.mark.parametrize(
    "words",
    [
        "Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies",
        "Video unavailable. This content isn't available, try again later. The current session "
        "has been rate-limited by YouTube for up to an hour.",
    ],
)
def test_a_refusal_of_the_client_pauses_the_source_without_recording_faults(
    served: Path, tmp_path: Path, words: str
) -> None:
    ids = [f"video{number:06d}" for number in range(10)]
    url = registered(tmp_path, ids)
    says = dict.fromkeys(ids[2:], words)
    with FlakyHost(served) as host:
        told = at_youtube(
            tmp_path, COLLECT, url, str(tmp_path / "videos"), url=host.source, says=says
        )
    assert told.startswith("youtube.com is paused until ")
    with Ledger(url) as ledger:
        rows = ledger.rows("tube")
    assert {row.video_id for row in rows if row.state == "downloaded"} == set(ids[:2])
    assert {(row.state, row.attempts) for row in rows[2:]} == {("pending", 0)}
