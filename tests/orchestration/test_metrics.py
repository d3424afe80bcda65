"""The page for Prometheus, with a real Prefect server, and the board that draws it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from coinml.embedding_sets.options import SetOptions
from coinml.monitoring.score_store import store_of
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml_ops.metrics.process import metrics_app
from coinml_ops.stack.health import Api
from flows.embed import embed

BOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana-board.json"

LAST_SCORES = {
    "model": "toy-task",
    "classified": 130,
    "failed_ever": 2,
    "waiting": 3,
    "unread": [{"path": "a.mp4", "error": "permission denied"}],
    "drift": ["class_mix"],
    "last_window": {"tests": {"class_mix": {"adjusted_p_value": 0.0004}}},
    "labelled": [{"accuracy": 0.75}],
}


@pytest.fixture
def page(
    collected: Selection, tiny_encoder_dir: Path
) -> Iterator[dict[str, dict[tuple[str, ...], float]]]:
    """The samples of a home with 24 embedded videos: values by labels, by name.

    The shared test server is left without the pool and the deployment, which other tests create.
    """
    embed(collected, SetOptions(encoder=str(tiny_encoder_dir), clips=1))
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="coinml", type="process"), overwrite=True)
        for queue in ("network", "gpu"):
            if queue not in {one.name for one in client.read_work_queues(work_pool_name="coinml")}:
                client.create_work_queue(name=queue, work_pool_name="coinml")
        made = client.create_deployment(
            flow_id=client.create_flow(embed),
            name="on-new",
            tags=["coinml"],
            work_pool_name="coinml",
            work_queue_name="gpu",
        )
        for state in (Completed(), Failed(), None):
            run = client.create_flow_run_from_deployment(made)
            if state is not None:
                client.set_flow_run_state(run.id, state, force=True)
        client.request(
            "POST",
            "/work_pools/{name}/workers/heartbeat",
            path_params={"name": "coinml"},
            json={"name": "gpu@here"},
        )
    scores = store_of(Settings().data_dir, "toy-task")
    scores.folder.mkdir(parents=True)
    scores.write_latest(LAST_SCORES)
    yield samples(Settings(), str(PREFECT_API_URL.value()))
    with get_client(sync_client=True) as client:
        client.delete_deployment(made)
        client.delete_work_pool("coinml")


def samples(settings: Settings, api: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by labels, by name, as a scrape finds them."""
    with TestClient(metrics_app(settings, Api(api))) as client:
        answer = client.get("/metrics")
        assert client.get("/health").status_code == 200
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for one in family.samples:
            found.setdefault(one.name, {})[tuple(one.labels.values())] = one.value
    return found


def test_the_page_has_what_the_board_draws(page: dict[str, Any]) -> None:
    assert set(page["coinml_part_readable"].values()) == {1}
    assert page["coinml_videos"] == {("toy", "downloaded"): 24, ("toy", "pending"): 0}
    assert page["coinml_videos_due"] == {("toy",): 0}
    assert page["coinml_videos_asked_last_hour"] == {("toy",): 24}
    assert page["coinml_rate_limit_videos_per_hour"] == {(): 300}
    ((labels, videos),) = page["coinml_set_videos"].items()
    assert (labels[0], videos) == ("toy", 24)
    assert page["coinml_set_bytes"][labels] > 0
    assert page["coinml_queue_runs"] == {
        ("network", "waiting"): 0,
        ("network", "running"): 0,
        ("gpu", "waiting"): 1,
        ("gpu", "running"): 0,
    }
    assert page["coinml_worker_online"] == {("gpu@here",): 1}
    for end in ("success", "failure"):
        last = page[f"coinml_deployment_last_{end}_timestamp_seconds"]
        assert last[("embed/on-new",)] > 1.7e9
    troubles = page["coinml_deployment_trouble"]
    assert troubles[("embed/on-new", "failed")] == 0
    assert {trouble for _, trouble in troubles} == {"blocked", "stalled", "failed"}
    assert page["coinml_disk_free_bytes"][()] > 0
    assert page["coinml_scored_files"] == {
        ("toy-task", "classified"): 130,
        ("toy-task", "failed"): 2,
        ("toy-task", "waiting"): 4,
    }
    assert page["coinml_drift"] == {("toy-task",): 1}
    assert page["coinml_drift_p_value"] == {("toy-task", "class_mix"): 0.0004}
    assert page["coinml_labelled_accuracy"] == {("toy-task",): 0.75}

    board = BOARD.read_text()
    asked = re.findall(r'"expr": "(.*)"', board)
    assert len(asked) >= len(json.loads(board)["panels"]) > 10
    names = {name for one in asked for name in re.findall(r"\bcoinml_\w+", one)}
    assert names == set(page)


def test_a_server_that_is_away_hides_nothing_else(home: Path) -> None:
    home.mkdir()
    found = samples(Settings(), "http://127.0.0.1:9/api")
    assert found["coinml_part_readable"] == {
        ("ledger",): 1,
        ("embeddings",): 1,
        ("scores",): 1,
        ("prefect",): 0,
        ("troubles",): 0,
        ("disk",): 1,
    }
    assert found["coinml_disk_free_bytes"][()] > 0
    # Reading makes no ledger.
    assert not (home / "data" / "ledger.db").exists()
