"""Commands refuse a second folder of one name before they do anything, and say how to go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coinml.errors import InvalidInputError
from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml_cli.app import app
from coinml_cli.flow_session import load_shown


def clips(folder: Path, *, hidden: bool = False) -> Selection:
    for label in ("boil", "cut"):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            (folder / label / f"v{number}.mp4").touch()
    if hidden:
        (folder / "boil" / "._v0.mp4").touch()
    return Selection(dataset=f"folder:{folder}")


def test_a_second_folder_is_refused_until_it_is_said_to_be_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    settings = Settings()
    first, second = clips(tmp_path / "a" / "videos"), clips(tmp_path / "b" / "videos", hidden=True)
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(first.load(settings.data_dir))
        load_shown(first, settings)
        with pytest.raises(InvalidInputError, match=r"--name.*coinml move-dataset"):
            load_shown(second, settings)
        assert ledger.origin("videos") == first.dataset
        # What is skipped is said in any case, on stderr.
        assert "'._v0.mp4'" in capsys.readouterr().err
        load_shown(second.model_copy(update={"name": "b"}), settings)

        run = CliRunner().invoke(app, ["move-dataset", "--dataset", second.dataset, "--json"])
        assert run.exit_code == 0, run.output
        assert ledger.origin("videos") == second.dataset
        load_shown(second, settings)
        with pytest.raises(InvalidInputError):
            load_shown(first, settings)

        unknown = CliRunner().invoke(
            app, ["move-dataset", "--dataset", second.dataset, "--name", "other"]
        )
        assert isinstance(unknown.exception, InvalidInputError)
        assert "it has: videos" in str(unknown.exception)
