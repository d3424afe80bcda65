"""What `coinml status` says of files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coinml.collection.adopt import adopt_in_place
from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml_cli.status import print_status
from tasks.counting import collect_report


def test_a_missing_file_is_not_said_not_to_decode_and_one_that_decodes_again_is_not_named(
    tmp_path: Path,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    settings = Settings()
    files = {name: tmp_path / f"{name}.mp4" for name in ("whole", "linked", "cut")}
    whole = make_video(files["whole"], seconds=1.0)
    files["linked"].symlink_to(tmp_path / "nowhere.mp4")
    files["cut"].write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    dataset = Dataset(
        name="clips",
        origin=str(tmp_path),
        videos=tuple(
            Video(video_id=name, label="boil", subset="training", split="train", path=str(path))
            for name, path in files.items()
        ),
    )
    settings.data_dir.mkdir(parents=True)
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(dataset)
        adopt_in_place(ledger, dataset)
    print_status(settings, "clips")
    said = capsys.readouterr().out
    assert "files that cannot be used: 2" in said
    assert "linked.mp4: the file is missing" in said
    assert "does not decode" not in said

    for name in ("linked", "cut"):
        files[name].unlink()
        files[name].write_bytes(whole.read_bytes())
    with Ledger(settings.ledger_url) as ledger:
        adopt_in_place(ledger, dataset)
    print_status(settings, "clips")
    said = capsys.readouterr().out
    assert "cannot be used" not in said
    assert "corrupt" not in said


def test_a_file_under_two_classes_is_named(
    tmp_path: Path,
    make_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    settings = Settings()
    make_video(tmp_path / "one.mp4", seconds=1.0)
    for name in ("two", "three"):
        (tmp_path / f"{name}.mp4").write_bytes((tmp_path / "one.mp4").read_bytes())
    dataset = Dataset(
        name="clips",
        origin=str(tmp_path),
        videos=tuple(
            Video(
                video_id=name,
                label=label,
                subset="training",
                split="train",
                path=str(tmp_path / f"{name}.mp4"),
            )
            for name, label in (("one", "boil"), ("two", "fry"), ("three", "boil"))
        ),
    )
    settings.data_dir.mkdir(parents=True)
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(dataset)
        adopt_in_place(ledger, dataset)
        (group,) = ledger.contradictions("clips")
    assert group == {"one": "boil", "three": "boil", "two": "fry"}
    print_status(settings, "clips")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "1 files are under more than one class: 'one' (boil) = 'three' (boil) = 'two' (fry)" in said
    )
    report = collect_report(dataset, tried=[], blocked_until=None)
    assert report.contradictions == (group,)
    assert "1 files are under more than one class" in str(report)
