"""`coinml status` says how many videos are smaller than what the encoder sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from coinml.collection.video_folder import verified_facts
from coinml.encoder.input_size import input_size_px
from coinml.ledger import Ledger
from coinml.media import check
from coinml.runtime.settings import Settings
from coinml_cli.status import extras_of, print_status
from tests.helpers.ledger_rows import attempt, dataset, facts, ids


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose ledger has six videos, one of them not downloaded."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    settings = Settings()
    sizes = (144, 224, 360, 223, None)
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(dataset())
        for video_id, size in zip(ids(), sizes, strict=False):
            file = facts(short_side_px=size)
            ledger.record_success("mini", video_id, file=file, attempt=attempt())
    return settings


def spec(settings: Settings, name: str, content: object) -> None:
    path = Path(settings.embeddings_root, "mini", name, "spec.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_the_status_counts_videos_below_the_input_size(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    extras = extras_of(settings, "mini")
    assert (extras["input_size_px"], extras["below_input_size"]) == (224, 2)
    print_status(settings, "mini")
    said = " ".join(capsys.readouterr().out.split())
    assert "2 downloaded videos have a shorter side of fewer than the 224 pixels" in said


def test_the_input_size_is_that_of_the_datasets_sets(settings: Settings) -> None:
    spec(settings, "a", {"encoder": {"crop": [112, 112]}})
    spec(settings, "b", {"encoder": {"crop": [160, 200]}})
    # Neither ends the command.
    spec(settings, "c", {"encoder": "damaged"})
    spec(settings, "d", [])
    extras = extras_of(settings, "mini")
    assert (extras["input_size_px"], extras["below_input_size"]) == (160, 1)
    assert input_size_px([]) == 224


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (48, 48)])
def test_the_shorter_side_of_a_file_is_recorded(
    tmp_path: Path, make_video: Callable[..., Path], size: tuple[int, int]
) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=0.4, size=size)
    verdict = check(path, deadline_s=None)
    assert verdict.short_side_px == 48
    # `check --json` prints what it always has.
    assert "short_side_px" not in verdict.as_dict()
    found = verified_facts(path, verify=lambda path: check(path, deadline_s=None))
    assert found.short_side_px == 48
