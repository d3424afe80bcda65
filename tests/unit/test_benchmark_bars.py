"""The benchmarks' exit codes: 0 only where every bar holds, and each bar says by how much.

What they measure takes minutes and is replaced here by given values.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

CASES = [
    (2.5, 0, "by 0.5"),
    (2.0, 0, "by 0"),
    (1.75, 1, "MISSED by 0.25"),
    (math.nan, 1, "MISSED by nan"),
]
"""A value whose bar is "at least 2", the exit code, and what is printed."""


def loaded(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    # Not by its own name, which a flow has too.
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("value", "code", "says"), CASES)
def test_embed(
    value: float,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed = loaded("embed", monkeypatch)
    for name in ("draw_videos", "save_base", "on_a_cpu", "on_a_gpu"):
        monkeypatch.setattr(embed, name, lambda *_, **__: None)
    monkeypatch.setattr(
        embed, "kept_tokens", lambda *_, bars, **__: bars.check("ratio", value, least=2)
    )
    assert embed.main() == code
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(("value", "code", "says"), CASES)
def test_embed_against_another_tree(
    value: float,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    embed = loaded("embed", monkeypatch, "--against", str(tmp_path))
    for name in ("draw_videos", "save_base"):
        monkeypatch.setattr(embed, name, lambda *_, **__: None)
    monkeypatch.setattr(embed, "against", lambda *_, check, **__: check("ratio", value, least=2))
    assert embed.main() == code
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(("value", "code", "says"), CASES)
def test_train(
    value: float,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = loaded("train", monkeypatch, "--only", "svm")
    monkeypatch.setattr(train, "use_best_kernels", lambda: None)
    monkeypatch.setattr(train, "make_data", lambda _, draw=train.make_data: draw(0.002))
    monkeypatch.setattr(train, "svm_grid", lambda _, result: result.bar("ratio", value, 2))
    assert train.main() == code
    assert says in capsys.readouterr().out


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The check, with one part to be given."""
    module = loaded("gpu", monkeypatch, "--dry", "--only", "loop", "--out", str(tmp_path))
    # It ends the process after eight minutes.
    monkeypatch.setattr(module, "watch_the_clock", lambda *_: None)
    monkeypatch.setattr(
        module, "prepare", lambda _, table, **__: SimpleNamespace(table=table, left=60.0)
    )
    return module


@pytest.mark.parametrize(("value", "code", "says"), CASES)
def test_gpu(
    value: float,
    code: int,
    says: str,
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(
        gpu.PARTS, "loop", (lambda check: check.table.bar("ratio", value, least=2), 30)
    )
    assert gpu.main() == code
    assert says in capsys.readouterr().out


def test_a_part_of_the_gpu_check_that_fails_is_missed(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.PARTS, "loop", (lambda _: 1 / 0, 30))
    assert gpu.main() == 1
