"""The flow `audit`: it logs an audit of the embedded videos and publishes what it found."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from coinml.audit.run_audit import latest_audit
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import home_store
from flows.audit import audit
from flows.embed import embed


def test_an_audit_is_logged_and_published(collected: Selection, tiny_encoder_dir: Path) -> None:
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    with pytest.raises(InvalidInputError):
        audit(collected, made)
    embed(collected, made)
    summary = audit(collected, made)
    assert summary.videos == 24
    tables = latest_audit(home_store(Settings()), "toy-task")
    assert summary.found == {name: len(rows) for name, rows in tables.items()}
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["audit-toy-task"]))
        )
    assert summary.run_id in str(artifact.data)
    assert f"{summary.suspects:,}" in str(artifact.data)
