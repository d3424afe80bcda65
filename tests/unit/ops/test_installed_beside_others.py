"""A wheel of coinml in an environment where another project's `flows` and `tasks` are."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from coinml.errors import LocalError
from coinml_ops import prefect_project

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = {
    "flows/__init__.py": 'OWNER = "another project"\n',
    "flows/collect.py": "def collect() -> str:\n    return 'stamps'\n",
    "tasks/__init__.py": 'OWNER = "another project"\n',
}
ENTRYPOINTS = """
import os
from coinml_ops.deployments.apply import read_file
from coinml_ops.deployments.pull_step import find_code
os.chdir(find_code()["directory"])
from prefect.flows import load_flow_from_entrypoint
for config in read_file()["deployments"]:
    print(load_flow_from_entrypoint(config["entrypoint"]).name, config["name"])
import flows.collect, tasks.limits
print(flows.collect.__file__, tasks.limits.__file__, sep="\\n")
"""


class Environment:
    """A virtual environment that has this one's packages, but not this checkout."""

    def __init__(self, folder: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60
        )
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")
        # The .pth files of a folder that is named in one are not read: no checkout comes along.
        (self.site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *arguments],
            check=True,
            timeout=100,
            capture_output=True,
        )

    def run(self, *call: str, home: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COINML", "PREFECT", "MLFLOW", "PYTHON"))
        }
        return subprocess.run(
            [str(self.bin / call[0]), *call[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            cwd=cwd,
            env={**environment, "COINML_HOME": str(home), "PREFECT_HOME": str(home / "prefect")},
        )

    def foreign_files(self) -> dict[str, str]:
        return {name: (self.site / name).read_text() for name in FOREIGN}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("no hatchling here (pip install -e '.[dev]')")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)),
        ],
        check=True,
        timeout=200,
    )
    (path,) = folder.glob("coinml-*.whl")
    return path


def test_the_wheel_has_nothing_of_a_common_name_at_the_top_level(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "coinml",
        "coinml_cli",
        "coinml_ops",
    }


def test_coinml_and_another_project_with_flows_work_in_one_environment(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "env")
    for name, text in FOREIGN.items():
        (environment.site / name).parent.mkdir(exist_ok=True)
        (environment.site / name).write_text(text)
    environment.pip("install", "--no-deps", "--no-index", "--no-compile", str(wheel))
    assert environment.foreign_files() == FOREIGN
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()

    script = "import coinml, flows.collect, tasks; print(flows.collect.collect(), tasks.OWNER)"
    foreign = environment.run("python", "-c", script, home=home, cwd=elsewhere)
    assert foreign.stdout == "stamps another project\n", foreign.stderr

    usage = environment.run("coinml", "--help", home=home, cwd=elsewhere)
    assert usage.returncode == 0, usage.stderr
    assert "collect" in usage.stdout

    # A command that runs a flow, which runs tasks.
    (elsewhere / "pets" / "cat").mkdir(parents=True)
    for name in ("tom", "felix", "garfield"):
        (elsewhere / "pets" / "cat" / f"{name}.mp4").write_bytes(b"no video")
    collected = environment.run(
        "coinml", "collect", "--dataset", "folder:pets", "--json", home=home, cwd=elsewhere
    )
    assert '"corrupt": 3' in collected.stdout, collected.stderr

    loaded = environment.run("python", "-c", ENTRYPOINTS, home=home, cwd=elsewhere)
    assert loaded.returncode == 0, loaded.stderr
    *flows, collect_file, limits_file = loaded.stdout.splitlines()
    assert "collect hourly" in flows
    assert {"audit monthly", "retention daily"} <= set(flows)
    assert len(flows) == 11
    project = environment.site / "coinml_ops" / "project"
    assert collect_file == str(project / "flows" / "collect.py")
    assert limits_file == str(project / "tasks" / "limits.py")

    environment.pip("uninstall", "--yes", "coinml")
    assert environment.foreign_files() == FOREIGN
    assert not (environment.site / "coinml_ops").exists()


def test_operations_can_be_imported_before_flows_and_tasks_are_found() -> None:
    """A wheel has them in a folder that only `import_from_project` adds to the path."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "coinml_ops").rglob("*.py"))
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and {"flows", "tasks"}
        & {
            name.split(".")[0]
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [one.name for one in node.names]
            )
        }
    ]
    assert found == []


def test_a_process_that_has_loaded_another_flows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("flows", tmp_path / "flows" / "__init__.py")
    assert spec is not None
    monkeypatch.setitem(sys.modules, "flows", importlib.util.module_from_spec(spec))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(LocalError, match="another package called flows"):
        prefect_project.import_from_project()
