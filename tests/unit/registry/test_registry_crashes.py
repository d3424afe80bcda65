"""Kills in the call that moves an alias: which version is the champion afterwards."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coinml.errors import RegistryError
from coinml.registry.promotion import promote, rollback
from coinml.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, version_at
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import MODEL, Trained
from tests.helpers.made_up_versions import NAME, candidate, holder, tags

# Kills itself (SIGKILL) in the call that moves an alias, like a power cut would.
DIE = """
import os, pickle, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from mlflow import MlflowClient
from coinml.registry.promotion import promote
from coinml.tracking.mlflow_store import MlflowStore
folder, alias = Path(sys.argv[1]), sys.argv[2]
store = MlflowStore(uri=f"sqlite:///{folder}/mlflow.db", artifact_root=folder / "mlartifacts")
whole = MlflowClient.set_registered_model_alias

def die(self, name, moved, version):
    if moved == alias:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, name, moved, version)

MlflowClient.set_registered_model_alias = die
if alias == "challenger":
    from tests.helpers.kitchen_dataset import train
    train("svm", store, pickle.loads((folder / "material.pickle").read_bytes()))
else:
    promote(store, "coin-task")
"""


def die_at(alias: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIE, str(folder), alias, str(Path(__file__).parents[3])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("alias", [PREVIOUS, CHAMPION])
def test_a_crash_between_verdict_and_alias_leaves_the_old_champion(
    store: MlflowStore, tmp_path: Path, alias: str
) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.8)
    die_at(alias, tmp_path)
    assert holder(store, CHAMPION) == old
    assert tags(store, new)["gate"] == "passed"
    with pytest.raises(RegistryError, match="no previous champion"):
        rollback(store, NAME)
    # A version that had passed is still promoted after a later one is registered.
    worse = candidate(store, right=0.3)
    verdicts = {verdict.version: verdict.promoted for verdict in promote(store, NAME)}
    assert verdicts == {new: True, worse: False}
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (new, old)
    assert tags(store, new)["gate"] == "promoted"


def test_a_crash_while_registering_leaves_the_old_champion_and_the_gate_working(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.home, tmp_path, dirs_exist_ok=True)
    store = MlflowStore(
        uri=f"sqlite:///{tmp_path}/mlflow.db", artifact_root=tmp_path / "mlartifacts"
    )
    (tmp_path / "material.pickle").write_bytes(pickle.dumps(trained.material))
    before = version_at(store, MODEL, CHAMPION)
    # The stored head is used: the same options are not trained again.
    for run_id in store.find_runs(MODEL, {"head": "svm"}):
        store.client().delete_run(run_id)
    die_at(CHALLENGER, tmp_path)
    after = version_at(store, MODEL, CHAMPION)
    assert before is not None
    assert after is not None
    assert after.version == before.version
    (verdict,) = promote(store, MODEL)
    assert verdict.version == 3
    assert "gate_reason" in store.client().get_model_version(MODEL, "3").tags
    # The run is marked as killed, so the same options are trained again on request.
    (run_id,) = store.find_runs(MODEL, {"head": "svm"}, finished=False)
    assert "version" not in store.read_run(run_id).data.tags
