"""What may import what, and what a light command must not load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
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
    copy_code(tmp_path)
    plant(tmp_path / file, line)
    arguments = {
        "lint-imports": [],
        "ruff": ["check", "coinml"],
        # The module alone: the front door's types lead to the whole library.
        "mypy": ["--follow-imports=skip", "-p", "coinml.data.splits"],
    }[tool]
    run = run_tool(tmp_path, tool, *arguments)
    assert run.returncode != 0
    assert says in run.stdout + run.stderr


def test_every_contract_catches_a_planted_violation(tmp_path: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contracts = {contract["name"] for contract in settings["contracts"]}
    assert len(contracts) >= 11
    copy_code(tmp_path)
    for file, line in (
        ("coinml/data/splits.py", "import prefect\n"),
        ("flows/collect.py", "import coinml_ops.work_pool\n"),
        ("coinml_ops/doctor/examine.py", "import coinml_ops.stack.supervisor\n"),
        ("coinml/data/records.py", "import coinml.faults.classification\n"),
        ("coinml/collection/pacing.py", "import yt_dlp\n"),
        ("coinml/embedding/jobs.py", "import decord\n"),
        ("coinml/heads/mlp.py", "import transformers\n"),
        ("coinml/heads/svm.py", "import optuna\n"),
        ("coinml/figures/style.py", "import plotly\n"),
        ("coinml/report/page.py", "import mlflow\n"),
        ("coinml/embedding/engine.py", "import distributed\n"),
        ("coinml/encoder/kernels.py", "import openvino\n"),
        ("coinml/encoder/backbone.py", "import nncf\n"),
    ):
        plant(tmp_path / file, line)
    printed = run_tool(tmp_path, "lint-imports").stdout
    assert {name for name in contracts if f"{name} BROKEN" not in printed} == set()


def copy_code(folder: Path) -> None:
    for name in ("coinml", "coinml_cli", "coinml_ops", "tasks", "flows"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def plant(file: Path, line: str) -> None:
    file.write_text(file.read_text() + "\n\n" + line)


def run_tool(folder: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(folder)},
    )


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
