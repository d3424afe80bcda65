"""What `import coinml` offers, and the walk through it in docs/python.md."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest

import coinml
from coinml.collection.options import CollectOptions
from coinml.collection.whole_dataset import collect
from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger
from coinml.media import write_video
from coinml.miniature.host import FlakyHost

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
ENCODER = '"MCG-NJU/videomae-base"'


def blocks(heading: str) -> list[str]:
    """The Python code of one section of the page."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(r"^```python\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)


def run(code: str, *, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COINML")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_front_door_has_exactly_these_names() -> None:
    assert sorted(coinml.__all__) == [
        "EmbeddingSet",
        "Ledger",
        "MlflowStore",
        "build_table",
        "collect",
        "compare",
        "embed",
        "load_dataset",
        "load_encoder",
        "load_training_data",
        "predict_files",
        "promote",
        "train_head",
    ]
    assert set(coinml.__all__) <= set(dir(coinml))


@pytest.mark.parametrize("name", coinml.__all__)
def test_a_name_of_the_front_door_is_documented(name: str) -> None:
    found = getattr(coinml, name)
    assert callable(found)
    assert inspect.getdoc(found)
    assert name in vars(coinml)
    assert f"coinml.{name}" in PAGE


def test_type_checkers_see_the_objects_that_are_imported() -> None:
    stub = ast.parse((ROOT / "coinml" / "__init__.pyi").read_text(encoding="utf-8"))
    typed = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(map(str, typed)) == sorted(coinml.__all__)
    for name, place in typed.items():
        assert getattr(coinml, str(name)) is resolve_name(place)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'coinml' has no attribute 'colect'"):
        coinml.colect  # type: ignore[attr-defined]  # noqa: B018


def test_the_front_door_loads_nothing_before_a_name_is_used(tmp_path: Path) -> None:
    loaded = run("import sys, coinml\nprint(*sys.modules)", cwd=tmp_path).split()
    assert "coinml" in loaded
    assert [name for name in loaded if name.startswith("coinml.")] == []
    assert not {"torch", "mlflow", "numpy", "pandas", "sqlalchemy", "pydantic"} & set(loaded)


def test_the_walk_goes_from_a_folder_of_videos_to_a_prediction(
    tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    for channel, label in enumerate(("boil", "cut", "fry")):
        (tmp_path / "videos" / label).mkdir(parents=True)
        for number in range(20):
            rng = np.random.default_rng(100 * channel + number)
            frames = rng.integers(0, 60, (20, 48, 64, 3), dtype=np.uint8)
            frames[..., channel] += 180
            write_video(tmp_path / "videos" / label / f"{number}.mp4", iter(frames), fps=12)
    write_video(tmp_path / "new.mp4", iter(frames), fps=12)
    code = "\n".join(blocks("From a folder to a prediction"))
    lines = [line for line in code.splitlines() if line.strip()]
    assert 15 < len(lines) < 30
    # The hub is not asked by tests.
    assert code.count(ENCODER) == 1
    code = code.replace(ENCODER, repr(str(tiny_encoder_dir)))
    more = [*blocks("Your own classifier"), *blocks("The registry")]
    assert len(more) == 2
    check = "import sys; print(len(train), 'prefect' in sys.modules)"
    said = run("\n".join([code, *more, check]), cwd=tmp_path)
    first, *_, verdict_1, verdict_2, answer, version_1, version_2, last = said.splitlines()
    assert first == "60 videos of 3 classes"
    assert "60 intact, {}" in said
    assert "McNemar p" in said
    assert {line.split()[1] for line in (verdict_1, verdict_2)} == {"True", "False"}
    assert answer.split()[0] == "fry"
    assert answer.split()[-1] == "None"
    assert "videos-task" in version_1
    assert "videos-task" in version_2
    assert 30 < int(last.split()[0]) < 60
    assert last.split()[1] == "False"


def test_the_code_that_needs_youtube_calls_functions_with_arguments_that_they_take() -> None:
    code = "from pathlib import Path\nimport coinml\n" + blocks("Collecting from YouTube")[0]
    names: dict[str, object] = {}
    imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    exec("\n".join(imports), names)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    checked = 0
    for call in calls:
        place = ast.unparse(call.func)
        try:
            function = eval(place, names)
        except NameError:
            continue
        arguments = [None] * len(call.args)
        inspect.signature(function).bind(
            *arguments, **{str(keyword.arg): None for keyword in call.keywords}
        )
        checked += 1
    assert checked


def test_every_function_that_the_page_names_exists() -> None:
    named = re.findall(r"`(coinml(?:_ops)?(?:\.\w+)+)`", PAGE)
    assert len(named) > 20
    for place in named:
        assert resolve_name(place) is not None


def test_collect_downloads_what_is_due_of_a_dataset(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    ids = [f"video{number:06}" for number in range(4)]
    served = tmp_path / "served"
    served.mkdir()
    for number, video_id in enumerate(ids[:3]):
        make_video(served / f"{video_id}.mp4", seconds=0.4, seed=number)
    dataset = Dataset(
        name="served",
        videos=tuple(
            Video(video_id=video_id, label="Boil", subset="training", split="train")
            for video_id in ids
        ),
    )
    outcomes: list[str] = []
    with (
        FlakyHost(served, {"videos": {ids[0]: ["503", "ok"]}}) as host,
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger,
    ):
        source = host.url + "/{id}.mp4"
        with pytest.raises(InvalidInputError, match="no folder"):
            collect(dataset, ledger, options=CollectOptions(source=source))
        first = collect(
            dataset,
            ledger,
            folder=tmp_path / "videos",
            options=CollectOptions(source=source, budget=1),
        )
        assert first.downloaded + sum(first.faults.values()) == 1
        status = collect(
            dataset,
            ledger,
            folder=tmp_path / "videos",
            options=CollectOptions(source=source, batch_size=2),
            on_video=lambda outcome: outcomes.append(outcome.video_id),
        )
    assert (status.total, status.downloaded, status.faults) == (4, 3, {"gone": 1})
    assert outcomes
    assert sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4")) == ids[:3]
