"""Wrong input is refused before anything is drawn, downloaded or started."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coinml.data.records import Dataset, Split, Video
from coinml.embedding.jobs import EmbedJob
from coinml.errors import InvalidInputError
from coinml.studies.condition_data import require_splits
from coinml.studies.options import StudyOptions
from coinml_cli import flow_session
from coinml_cli.app import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new home, in which no server may be started."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    monkeypatch.setattr(
        flow_session, "prefect_api", lambda _: pytest.fail("a server was started first")
    )
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["annotations", "mini"],
        ["collect", "--dataset", "mini"],
        ["embed", "--dataset", "mini"],
        ["train", "--dataset", "mini"],
        ["run", "--dataset", "mini"],
        ["reprocess", "--dataset", "mini"],
        ["study", "data", "--dataset", "mini"],
        ["audit", "--dataset", "mini"],
        ["report", "--dataset", "mini"],
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--group", "x"], "group 'x': only for folder:DIR"),
        (["--classes", "Nothing"], "no class Nothing; the classes are"),
        (["--name", "a/b"], "dataset name 'a/b'"),
    ],
)
def test_a_wrong_selection_of_the_miniature_draws_nothing(
    home: Path, command: list[str], wrong: list[str], says: str
) -> None:
    run = CliRunner().invoke(app, [*command, *wrong])
    assert isinstance(run.exception, InvalidInputError), run.output
    assert says in str(run.exception)
    assert not (home / "data" / "miniature" / "videos").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["audit"], "no embedding set fe5b7c16013b of 'mini'"),
        (["report", "--target", "steps"], "--target steps"),
        (["report", "--projections", "umap"], "projection umap"),
        (["study", "dims", "--heads", "attentive"], "study dims: attentive takes clips"),
        (["study", "colour"], "study 'colour'"),
        (["promote", "--version", "99"], "run `coinml collect` first"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_other_wrong_input_draws_nothing(home: Path, command: list[str], says: str) -> None:
    run = CliRunner().invoke(app, command)
    assert isinstance(run.exception, InvalidInputError), run.output
    assert says in str(run.exception)
    assert not (home / "data" / "miniature" / "videos").exists()


def test_counting_the_miniature_draws_nothing(home: Path) -> None:
    run = CliRunner().invoke(app, ["annotations", "mini", "--json"])
    assert run.exit_code == 0
    assert '"videos": 360' in run.stdout
    assert (home / "data" / "miniature" / "COIN.json").is_file()
    assert not (home / "data" / "miniature" / "videos").exists()


def a_dataset(splits: dict[str, Split]) -> Dataset:
    return Dataset(
        name="toy",
        videos=tuple(
            Video(
                video_id=name,
                label=name[0],
                subset="testing" if split == "test" else "training",
                split=split,
            )
            for name, split in splits.items()
        ),
    )


def test_a_study_needs_every_split_before_it_embeds() -> None:
    dataset = a_dataset({"a1": "train", "a2": "val", "a3": "test", "b1": "train"})

    def jobs(*ids: str) -> list[EmbedJob]:
        return [EmbedJob(video_id=one, path="/x", file_sha256="0") for one in ids]

    with pytest.raises(InvalidInputError, match="collected are 1 of train, 0 of val, 1 of test"):
        require_splits(dataset, jobs("a1", "a3"), target="task")
    with pytest.raises(InvalidInputError, match=r"two classes or more; .* are all 'a'"):
        require_splits(dataset, jobs("a1", "a2", "a3"), target="task")
    require_splits(dataset, jobs("a1", "a2", "a3", "b1"), target="task")


def test_heads_of_a_study_are_checked_for_it() -> None:
    StudyOptions(heads=("attentive",)).check_for("clips")
    with pytest.raises(InvalidInputError, match="takes clips"):
        StudyOptions(heads=("svm", "attentive")).check_for("dims")
