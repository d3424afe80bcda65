"""`coinml embeddings`: output, changes to the sets, and exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coinml.data.records import Dataset, Video
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.ledger import Ledger
from coinml_cli.app import app
from tests.helpers.small_sets import ENCODER, SPEC, rows

OTHER = SetSpec(encoder=replace(ENCODER, clips=4), dataset="coin", snap="keyframe")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def embeddings(home: Path) -> EmbeddingSet:
    there = EmbeddingSet.open(str(home / "data" / "embeddings"), "mini", SPEC, create=True)
    there.append([rows("a"), rows("b")])
    there.append([replace(rows("c"), frames_substituted=1)])
    return there


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["embeddings", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_sets_are_listed(home: Path, embeddings: EmbeddingSet) -> None:
    EmbeddingSet.open(str(home / "data" / "embeddings"), "coin", OTHER, create=True)
    assert answer() == answer("list")
    one, other = answer("list")
    assert (one["dataset"], one["fingerprint"]) == ("mini", SPEC.fingerprint)
    assert (one["videos"], one["rows"], one["parts"], one["broken"]) == (3, 9, 2, 0)
    assert (one["snap"], other["snap"]) == ("exact", "keyframe")
    assert other["newest"] is None
    assert [row["dataset"] for row in answer("list", "--dataset", "coin")] == ["coin"]
    table = run()
    assert SPEC.fingerprint in table
    assert "3 x 16 / 4" in table


def test_list_names_a_set_with_a_damaged_spec_and_fails(
    home: Path, embeddings: EmbeddingSet
) -> None:
    broken = EmbeddingSet.open(str(home / "data" / "embeddings"), "coin", OTHER, create=True)
    Path(broken.path, "spec.json").write_text("{")
    result = CliRunner().invoke(app, ["embeddings", "list", "--json"])
    assert result.exit_code == 1
    assert [row["dataset"] for row in json.loads(result.stdout)] == ["mini"]
    assert broken.path in result.stderr.replace("\n", "")


def test_show_prints_specification_contents_and_parts(embeddings: EmbeddingSet) -> None:
    shown = answer("show", SPEC.fingerprint[:4])
    assert shown["spec"] == json.loads(json.dumps(SPEC.as_dict()))
    assert (shown["videos"], shown["clips"], shown["decoders"]) == (3, 9, {"pyav": 3})
    assert (shown["frames_substituted"], shown["dtypes"]) == (1, {"float32": 3})
    assert [part["part"] for part in shown["parts"]] == embeddings.parts()
    text = run("show")
    assert SPEC.encoder.weights_sha256 in text
    assert embeddings.parts()[1] in text.replace("\n", "")


def test_verify_lists_broken_parts_and_sets_them_aside(embeddings: EmbeddingSet) -> None:
    assert answer("verify")["broken"] == []
    assert "all intact" in run("verify")
    part = embeddings.parts()[0]
    path = Path(embeddings.path, part)
    path.write_bytes(path.read_bytes()[:-50])
    result = CliRunner().invoke(app, ["embeddings", "verify", "--json"])
    assert result.exit_code == 1
    assert [broken["part"] for broken in json.loads(result.stdout)["broken"]] == [part]
    assert part in CliRunner().invoke(app, ["embeddings", "verify"]).stdout.replace("\n", "")
    assert "1 parts cannot be read" in CliRunner().invoke(app, ["embeddings"]).stderr
    found = answer("verify", "--set-aside")
    assert (len(found["broken"]), found["parts"], found["set_aside"]) == (1, 1, True)
    assert answer("verify")["broken"] == []
    assert {video for video, *_ in embeddings.done()} == {"c"}
    assert path.with_name(f"bad-{part}").is_file()


def test_compact_merges_parts(embeddings: EmbeddingSet) -> None:
    before = embeddings.clips()
    assert "2 parts" in run("compact", "--dataset", "mini")
    assert answer("compact")["parts_after"] == 1
    assert embeddings.clips().equals(before)


def test_export_writes_the_labels_of_the_ledger(home: Path, embeddings: EmbeddingSet) -> None:
    video = Video(video_id="b", label="Boil", subset="training", split="train")
    with Ledger(f"sqlite:///{home / 'data' / 'ledger.db'}") as ledger:
        ledger.register(Dataset(name="mini", videos=(video,)))
    report = answer("export", "--format", "csv", "--level", "videos")
    assert report["path"] == f"mini-{SPEC.fingerprint}.csv"
    assert (report["videos"], report["rows"]) == (3, 3)
    head, *lines = Path(report["path"]).read_text().splitlines()
    assert head.startswith("video_id,label,file_sha256,")
    assert [line.split(",")[:2] for line in lines] == [["a", ""], ["b", "Boil"], ["c", ""]]
    again = CliRunner().invoke(app, ["embeddings", "export", "--out", report["path"]])
    assert "--force" in str(again.exception)
    assert "3 videos, 9 vectors" in run("export", "--out", report["path"], "--force")


def test_an_ambiguous_set_and_misplaced_options_are_refused(
    home: Path, embeddings: EmbeddingSet
) -> None:
    EmbeddingSet.open(str(home / "data" / "embeddings"), "coin", OTHER, create=True)
    several = CliRunner().invoke(app, ["embeddings", "show"])
    assert "several sets" in str(several.exception)
    misplaced = CliRunner().invoke(app, ["embeddings", "--json", "show"])
    assert misplaced.exit_code == 2
    assert "coinml embeddings show" in misplaced.stderr.replace("\n", "")
    assert run("show", "--dataset", "coin")
