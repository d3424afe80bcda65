"""Runs in MLflow: final status, search, metrics, and artifact locations."""

from __future__ import annotations

import base64
import os
import pwd
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from coinml.errors import InvalidInputError, LocalError, TransientError
from coinml.runtime.addresses import without_password
from coinml.tracking.epochs import EpochWriter
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    from tests.helpers.kitchen_dataset import Trained


def status(store: MlflowStore, run_id: str) -> str:
    return str(store.read_run(run_id).info.status)


def test_a_run_ends_finished_failed_or_killed(store: MlflowStore) -> None:
    with store.run("e", "fine", tags={}) as fine:
        assert status(store, fine.run_id) == "RUNNING"
    with pytest.raises(ValueError, match="no good"), store.run("e", "bad", tags={}) as bad:
        raise ValueError("no good")
    with pytest.raises(KeyboardInterrupt), store.run("e", "stopped", tags={}) as stopped:
        raise KeyboardInterrupt
    assert [status(store, log.run_id) for log in (fine, bad, stopped)] == [
        "FINISHED",
        "FAILED",
        "KILLED",
    ]


def test_runs_are_found_by_all_of_their_tags_the_latest_first(store: MlflowStore) -> None:
    ids = []
    for colour in ("red", "blue", "red"):
        with store.run("e", "run", tags={"colour": colour, "size": "big"}) as log:
            ids.append(log.run_id)
    assert store.find_runs("e", {"colour": "red", "size": "big"}) == [ids[2], ids[0]]
    assert store.find_runs("e", {"colour": "red", "size": "small"}) == []
    assert store.find_runs("another", {"colour": "red"}) == []


def test_only_finished_runs_are_found_by_default(store: MlflowStore) -> None:
    with pytest.raises(ValueError, match="x"), store.run("e", "bad", tags={"k": "v"}) as bad:
        raise ValueError("x")
    assert store.find_runs("e", {"k": "v"}) == []
    assert store.find_runs("e", {"k": "v"}, finished=False) == [bad.run_id]


def test_a_nested_run_has_its_parents_id(store: MlflowStore) -> None:
    with (
        store.run("e", "whole", tags={}) as whole,
        store.run("e", "part", tags={"k": "v"}, parent_run_id=whole.run_id) as part,
    ):
        part.metrics({"a": 1.0})
    assert store.find_runs("e", {"mlflow.parentRunId": whole.run_id}) == [part.run_id]
    assert "mlflow.parentRunId" not in store.read_run(whole.run_id).data.tags


def test_the_curves_of_epochs_and_final_metrics_are_in_groups(store: MlflowStore) -> None:
    steps = [{"val_loss": 1 / step, "val_accuracy": step / 1500} for step in range(1, 1201)]
    with store.run("e", "long", tags={}) as log:
        log.history(steps)
        log.metrics({"val_loss": 0.25, "test_loss": 0.5})
    client = store.client()
    assert [m.step for m in client.get_metric_history(log.run_id, "epoch/val_loss")][-1] == 1200
    # MLflow draws metrics without steps as bars.
    assert [m.step for m in client.get_metric_history(log.run_id, "test/loss")] == [0]
    history = client.get_metric_history(log.run_id, "epoch/val_accuracy")
    assert [(m.step, m.value) for m in history] == [(s, s / 1500) for s in range(1, 1201)]
    logged = store.read_run(log.run_id).data.metrics
    assert logged["val/loss"] == 0.25
    assert own_metrics(logged) == {"val_loss": 0.25, "test_loss": 0.5}
    table = store.read_history(log.run_id)
    assert list(table) == ["step", "val_accuracy", "val_loss"]
    assert table["val_loss"].tolist() == [1 / step for step in range(1, 1201)]


def test_an_experiment_opens_for_model_training_also_if_it_is_older(store: MlflowStore) -> None:
    client = store.client()
    older = client.create_experiment("older", tags={"mlflow.experimentKind": "genai_development"})
    client.create_experiment("oldest")
    for name in ("new", "oldest"):
        tags = client.get_experiment(store.experiment(name, description="what is in it")).tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"
        assert tags["mlflow.experiment.primaryMetric.name"] == "val/accuracy"
        assert tags["mlflow.note.content"] == "what is in it"
    # What a user has chosen stays.
    assert store.experiment("older") == older
    assert client.get_experiment(older).tags["mlflow.experimentKind"] == "genai_development"


def test_a_run_says_who_made_it_with_which_code(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/coinml", "collect", "--source", "https://u:p@host"])
    with store.run("e", "r", tags={"k": "v"}) as log:
        pass
    tags = store.read_run(log.run_id).data.tags
    assert tags["mlflow.user"] == pwd.getpwuid(os.getuid()).pw_name
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("coinml collect", "LOCAL")
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    # An exported source tree has no commit.
    assert tags.get("mlflow.source.git.commit", "") == head


def test_tables_are_read_back_unchanged(store: MlflowStore) -> None:
    table = pd.DataFrame({"video_id": ["-a", "b,c"], "score": [0.5, None], "n": [1, 2]})
    with store.run("e", "r", tags={}) as log:
        log.table("predictions", table)
    pd.testing.assert_frame_equal(store.read_table(log.run_id, "predictions"), table)
    with pytest.raises(InvalidInputError, match="has no table 'search'"):
        store.read_table(log.run_id, "search")


def test_an_unknown_run_is_named_in_the_error(store: MlflowStore) -> None:
    for run_id in ("0" * 32, "nonsense"):
        with pytest.raises(InvalidInputError, match=f"no run '{run_id}' at sqlite"):
            store.read_run(run_id)


def test_an_unreachable_store_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError, match=r"http://127\.0\.0\.1:9"):
        MlflowStore(uri="http://127.0.0.1:9", artifact_root=tmp_path).read_run("0" * 32)


def test_a_password_in_the_address_is_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    store = MlflowStore(uri="http://ann:hush-hush@127.0.0.1:9", artifact_root=tmp_path)
    assert store.shown == "http://ann:***@127.0.0.1:9"
    assert without_password("http://127.0.0.1:9/a@b") == "http://127.0.0.1:9/a@b"
    with pytest.raises(TransientError, match="ann") as read:
        store.read_run("0" * 32)
    with pytest.raises(TransientError, match="ann") as found, store.outages_as_transient():
        store.find_runs("e", {})
    with pytest.raises(MlflowException) as raw:
        store.find_runs("e", {})
    for error in (read.value, found.value, raw.value):
        # With the chained exceptions, as a log would show them.
        assert "hush" not in "".join(traceback.format_exception(error))


def test_user_and_password_are_sent_to_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    told: list[str] = []

    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"run": {"info": {"run_id": "r", "experiment_id": "7"}}}')

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"127.0.0.1:{server.server_port}"
        store = MlflowStore(uri=f"http://ann:hush%40hush@{url}", artifact_root=tmp_path)
        assert store.page_of("r") == f"http://{url}/#/experiments/7/runs/r"
    finally:
        server.shutdown()
        server.server_close()
    assert told == ["Basic " + base64.b64encode(b"ann:hush@hush").decode()]


def test_a_refused_request_is_not_taken_for_an_unreachable_server(store: MlflowStore) -> None:
    with pytest.raises(MlflowException, match="Invalid model name"), store.outages_as_transient():
        store.client().create_registered_model("a/b")


class Away:
    """Stands for MLflow: takes epochs, or raises while it is away."""

    def __init__(self) -> None:
        self.here = threading.Event()
        self.asked = threading.Event()
        self.written: dict[int, float] = {}

    def __call__(self, steps: Sequence[Mapping[str, float]], first: int) -> None:
        self.asked.set()
        if not self.here.is_set():
            raise MlflowException("API request to http://127.0.0.1:9 failed")
        self.written |= {step: one["loss"] for step, one in enumerate(steps, start=first)}


def test_epochs_logged_during_an_outage_are_written_after_it() -> None:
    mlflow = Away()
    writer = EpochWriter(mlflow, every_s=0.01)
    writer.add({"loss": 3.0})
    assert mlflow.asked.wait(10)
    # The training thread saw no error.
    writer.add({"loss": 2.0})
    assert mlflow.written == {}
    mlflow.here.set()
    writer.add({"loss": 1.0})
    writer.close()
    assert mlflow.written == {1: 3.0, 2: 2.0, 3: 1.0}


def test_closing_raises_if_epochs_cannot_be_written() -> None:
    writer = EpochWriter(Away(), every_s=60)
    writer.add({"loss": 3.0})
    with pytest.raises(MlflowException, match="failed"):
        writer.close()


def test_a_continued_run_gets_its_missing_steps(store: MlflowStore) -> None:
    steps = [{"loss": 1 / step} for step in range(1, 6)]
    with store.run("e", "r", tags={}) as log:
        log.history(steps[:2])
    store.client().set_terminated(log.run_id, "KILLED")
    with store.run("e", "r", tags={}, run_id=log.run_id) as log:
        log.complete_history(steps)
    history = store.client().get_metric_history(log.run_id, "epoch/loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 6)]
    assert status(store, log.run_id) == "FINISHED"


def test_a_final_status_that_was_not_taken_is_set_by_the_next_run(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MlflowException), store.run("e", "cut off", tags={}) as log:
        raise MlflowException("API request to http://127.0.0.1:9 failed with exception refused")
    assert status(store, log.run_id) == "RUNNING"
    with store.run("e", "next", tags={}):
        assert status(store, log.run_id) == "FAILED"


def test_a_run_has_a_page_if_the_store_is_a_server(store: MlflowStore) -> None:
    with store.run("e", "r", tags={}) as log:
        assert store.page_of(log.run_id) is None


def test_an_experiment_is_created_once_with_its_description(store: MlflowStore) -> None:
    first = store.experiment("coin-task", description="Tasks of COIN")
    assert store.experiment("coin-task") == first
    found = store.client().get_experiment(first)
    assert found.tags["mlflow.note.content"] == "Tasks of COIN"
    # One earlier call, and two concurrent ones.
    bare = store.experiment("bare")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: store.experiment("bare", description="Bare"), range(8)))
    assert set(made) == {bare}
    assert store.client().get_experiment(bare).tags["mlflow.note.content"] == "Bare"
    # An edited description is not overwritten.
    store.experiment("coin-task", description="Something else")
    found = store.client().get_experiment(first)
    assert found.tags["mlflow.note.content"] == "Tasks of COIN"


def test_artifacts_are_below_the_artifact_root_in_any_working_folder(
    new_store: Callable[[Path], MlflowStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = new_store(tmp_path)
    monkeypatch.chdir(elsewhere)
    store = MlflowStore(uri=made.uri, artifact_root=Path("../mlartifacts"))
    with store.run("e", "r", tags={}) as log:
        log.json("coverage", {"a": 1})
    monkeypatch.chdir(tmp_path)
    uri = store.read_run(log.run_id).info.artifact_uri
    assert uri.startswith((tmp_path / "mlartifacts" / "e").as_uri())
    assert (tmp_path / "mlartifacts" / "e" / log.run_id / "artifacts" / "coverage.json").is_file()
    assert list(elsewhere.iterdir()) == []


def test_a_dataset_is_logged_as_an_input_with_its_digest(store: MlflowStore) -> None:
    table = pd.DataFrame({"video_id": ["a", "b"], "label": ["x", "y"], "e0000": [0.5, 1.5]})
    with store.run("e", "r", tags={}) as log:
        log.dataset(
            table,
            name="coin",
            digest="abc123",
            context="training",
            source={"set_fingerprint": "f00"},
        )
    (entry,) = store.read_run(log.run_id).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("coin", "abc123")
    assert "f00" in entry.dataset.source
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


MAKE_A_STORE = """
import sys
from pathlib import Path
from coinml.tracking.mlflow_store import MlflowStore
store = MlflowStore(uri=f"sqlite:///{sys.argv[1]}/new/mlflow.db", artifact_root=Path(sys.argv[1]))
with store.run("e", "r", tags={"k": "v"}) as log:
    log.params({"a": 1})
    log.metrics({"b": 2})
print(log.run_id)
"""


@pytest.mark.timeout(200)
def test_two_processes_create_one_database_at_the_same_time_without_output(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE_A_STORE, str(tmp_path)],
            cwd=tmp_path,
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=150) for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(map(str, said))
    assert [stderr for _, stderr in said] == ["", ""]
    store = MlflowStore(uri=f"sqlite:///{tmp_path}/new/mlflow.db", artifact_root=tmp_path)
    found = store.find_runs("e", {"k": "v"})
    assert sorted(found) == sorted(stdout.strip() for stdout, _ in said)


def test_a_run_of_a_killed_process_is_marked_as_killed(store: MlflowStore) -> None:
    script = """
import sys, time
from pathlib import Path
from coinml.tracking.mlflow_store import MlflowStore
store = MlflowStore(uri=sys.argv[1], artifact_root=Path(sys.argv[2]))
with store.run("toy", "left", tags={}) as log:
    print(log.run_id, flush=True)
    time.sleep(600)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, store.uri, str(store.artifact_root)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    left = child.stdout.readline().strip()
    assert store.end_abandoned("toy") == []
    child.kill()
    child.wait()
    with store.run("toy", "next", tags={}) as log:
        assert store.read_run(left).info.status == "KILLED"
        # The run of the live process is not changed.
        assert store.end_abandoned("toy") == []
    assert store.read_run(log.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("left", [0, 40, 20_000])
def test_a_database_that_lost_its_runs_is_named(
    trained: Trained, tmp_path: Path, left: int
) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained.home, home)
    os.truncate(home / "mlflow.db", left)
    store = MlflowStore(uri=f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts")
    with pytest.raises(LocalError, match=r"mlflow\.db is .*coinml restore PLACE --only mlflow"):
        store.client()
    assert (home / "mlflow.db").stat().st_size == left


def test_an_empty_database_without_artifacts_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    store = MlflowStore(
        uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_root=tmp_path / "mlartifacts"
    )
    assert store.client().search_experiments()
