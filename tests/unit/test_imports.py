"""What may import what, and what a light command must not load."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "mlflow",
    "prefect",
    "transformers",
    "sklearn",
    "pandas",
    "matplotlib",
    "av",
    "yt_dlp",
}


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(output.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "coinml",
        "coinml.data.records",
        "coinml.errors",
        "coinml.runtime.settings",
        "coinml.data.annotations",
        "coinml.selection",
        "coinml.ledger",
        "coinml.faults.classification",
        "coinml.heads.kinds",
        "coinml.media",
        "coinml.miniature",
        "coinml_cli.app",
        "coinml_cli.result_tables",
    ],
)
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert "coinml" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("file", "line", "tool", "says"),
    [
        ("coinml/data/splits.py", "import prefect\n", "lint-imports", "knows nothing of Prefect"),
        ("coinml/data/splits.py", "import tasks.policies\n", "lint-imports", "Arrows point down"),
        ("tasks/policies.py", "import flows.collect\n", "lint-imports", "Arrows point down"),
        (
            "coinml/data/records.py",
            "import coinml.faults.classification\n",
            "lint-imports",
            "ground floor",
        ),
        (
            "coinml/embedding_sets/table.py",
            "import yt_dlp\n",
            "lint-imports",
            "yt-dlp has one owner",
        ),
        (
            "coinml_ops/doctor/examine.py",
            "import coinml_ops.stack.supervisor\n",
            "lint-imports",
            "run with `python -m`",
        ),
        ("coinml_ops/work_pool.py", "import coinml_cli.app\n", "lint-imports", "Arrows point down"),
        ("coinml_ops/work_pool.py", "import flows.collect\n", "lint-imports", "Arrows point down"),
        ("flows/collect.py", "import av\n", "lint-imports", ""),
        ("coinml/data/splits.py", "import os\n", "ruff", "F401"),
        ("coinml/data/splits.py", "def f(x): return x\n", "mypy", "no-untyped-def"),
    ],
)
def test_a_planted_violation_is_caught(
    tmp_path: Path, file: str, line: str, tool: str, says: str
) -> None:
    for folder in ("coinml", "coinml_cli", "coinml_ops", "tasks", "flows"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / file
    planted.write_text(planted.read_text() + "\n\n" + line)
    arguments = {
        "lint-imports": [],
        "ruff": ["check", "coinml"],
        "mypy": ["-p", "coinml.data.splits" if "splits" in file else "coinml"],
    }[tool]
    run = subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode != 0
    assert says in run.stdout + run.stderr


def test_no_flow_bears_the_name_of_an_installed_module() -> None:
    """Prefect loads `flows/x.py` with `flows/` first on the path, under the bare stem."""
    stems = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")
    assert stems
    code = f"""
import importlib.util, sys
sys.path = [entry for entry in sys.path if entry not in ("", {str(ROOT)!r})]
print([stem for stem in {stems!r} if importlib.util.find_spec(stem)])
"""
    output = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert output.stdout.strip() == "[]"
