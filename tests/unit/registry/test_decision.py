"""A person's decision for a version: who, when and why are recorded, and the gate is not asked."""

from __future__ import annotations

import json
import os
import pwd
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coinml.errors import InvalidInputError, RegistryError
from coinml.registry.decision import write_decision
from coinml.registry.promotion import GATE_TRIES, promote, rollback
from coinml.registry.versions import CHAMPION, PREVIOUS
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.made_up_versions import NAME, candidate, holder, tags

USER = pwd.getpwuid(os.getuid()).pw_name


def test_a_decision_makes_a_version_the_champion_and_is_recorded(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The account counts, not what the shell says.
    monkeypatch.setenv("LOGNAME", "somebody")
    old = candidate(store, right=0.9)
    promote(store, NAME)
    new = candidate(store, right=0.95)
    (refused,) = promote(store, NAME)
    assert not refused.promoted
    budget = store.client().get_registered_model(NAME).tags[GATE_TRIES]
    (verdict,) = promote(store, NAME, [new], because=" reviewed\n200 answers by hand ")
    assert verdict.promoted
    assert verdict.decided_by == USER
    assert verdict.as_dict()["decided_by"] == USER
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (new, old)
    written = tags(store, new)
    assert written["gate"] == "promoted"
    assert written["gate_reason"] == verdict.reason
    assert (written["decided_by"], written["decided_because"]) == (
        USER,
        "reviewed 200 answers by hand",
    )
    decided_at = datetime.fromisoformat(written["decided_at"])
    assert abs((datetime.now(UTC) - decided_at).total_seconds()) < 600
    assert f"{USER} decided on {decided_at:%Y-%m-%d at %H:%M UTC}, without the gate: " in (
        verdict.reason
    )
    assert "reviewed 200 answers by hand (before: not better than champion" in verdict.reason
    # It is no try, and a later one is compared with the version decided for.
    assert store.client().get_registered_model(NAME).tags[GATE_TRIES] == budget
    candidate(store, right=0.9)
    (later,) = promote(store, NAME)
    assert later.reason.startswith(f"not better than champion {new}")
    assert later.decided_by is None


def test_a_decision_can_name_the_first_champion_and_one_that_the_gate_never_judged(
    store: MlflowStore,
) -> None:
    version = candidate(store, right=0.3)
    (verdict,) = promote(store, NAME, [version], because="a placeholder for the demonstration")
    assert verdict.promoted
    assert "(before:" not in verdict.reason
    assert holder(store, CHAMPION) == version
    # Asked again, it is the champion already.
    assert promote(store, NAME, [version], because="again") == [verdict]


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_decision_without_a_reason_is_refused(store: MlflowStore, text: str) -> None:
    version = candidate(store, right=0.8)
    with pytest.raises(InvalidInputError, match="say why this version is to be champion"):
        promote(store, NAME, [version], because=text)
    assert holder(store, CHAMPION) is None
    assert "gate" not in tags(store, version)


def test_a_decision_is_for_one_version_that_exists(store: MlflowStore) -> None:
    versions = [candidate(store, right=0.8), candidate(store, right=0.9)]
    for given in (None, [], versions):
        with pytest.raises(InvalidInputError, match="a decision for one version"):
            promote(store, NAME, given, because="good")
    with pytest.raises(RegistryError, match="no version 7 of coin-task"):
        promote(store, NAME, [7], because="good")
    with pytest.raises(InvalidInputError, match="--replace-lost"):
        promote(store, NAME, versions[:1], because="good", replace_lost=True)
    with pytest.raises(InvalidInputError, match="has 2001 characters; 2000 are allowed"):
        promote(store, NAME, versions[:1], because="x" * 2001)
    assert holder(store, CHAMPION) is None


def test_control_characters_of_a_reason_are_shown_as_text(store: MlflowStore) -> None:
    version = candidate(store, right=0.8)
    (verdict,) = promote(store, NAME, [version], because="good\x1b[31m \u202eback")
    assert r"good\x1b[31m \u202eback" in verdict.reason
    assert verdict.reason.isprintable()


def test_a_decision_can_bring_back_what_was_rolled_back_and_be_rolled_back(
    store: MlflowStore,
) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.9)
    promote(store, NAME)
    rollback(store, NAME)
    (verdict,) = promote(store, NAME, [new], because="the fault was in the camera")
    assert verdict.promoted
    assert "(before: rolled back to version 1)" in verdict.reason
    assert rollback(store, NAME).version == old
    assert tags(store, new)["gate"] == "rolled back"
    assert tags(store, new)["decided_because"] == "the fault was in the camera"


def test_a_decision_that_was_interrupted_before_the_alias_is_carried_out(
    store: MlflowStore,
) -> None:
    old = candidate(store, right=0.9)
    promote(store, NAME)
    new = candidate(store, right=0.8)
    (decided,) = promote(store, NAME, [new], because="faster")
    client = store.client()
    client.set_model_version_tag(NAME, str(new), "gate", "decided")
    client.set_registered_model_alias(NAME, CHAMPION, str(old))
    assert promote(store, NAME) == [decided]
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (new, old)
    assert tags(store, new)["gate"] == "promoted"


def test_a_version_that_was_judged_and_decided_for_has_at_most_eight_tags(
    store: MlflowStore,
) -> None:
    old = as_registered(store, candidate(store, right=0.6))
    promote(store, NAME)
    new = as_registered(store, candidate(store, right=0.65))
    (refused,) = promote(store, NAME)
    judged = tags(store, new)
    assert refused.attempt == 2
    assert judged["gate_try"] == "2"
    promote(store, NAME, [new], because="reviewed by hand")
    decided = tags(store, new)
    assert set(decided) == {
        *("head", "val_accuracy", "test_accuracy", "gate", "gate_reason"),
        *("decided_by", "decided_at", "decided_because"),
    }
    assert [one["tags"] for one in put_aside(store, new)] == [judged]

    # The gate can still be asked, and its verdict replaces the decision.
    promote(store, NAME, [old], because="the other was a mistake")
    (again,) = promote(store, NAME, [new])
    assert (again.promoted, again.attempt, again.decided_by) == (False, 2, None)
    assert "gate_level" in tags(store, new)
    assert len(tags(store, new)) <= 8
    assert len(tags(store, old)) <= 8
    assert decided | {"gate": "promoted"} in [one["tags"] for one in put_aside(store, new)]


def test_a_version_whose_run_is_gone_is_decided_for_and_keeps_all_tags(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.65)
    promote(store, NAME)
    judged = tags(store, new)
    version = store.client().get_model_version(NAME, str(new))
    # As the version of a run that `mlflow gc` has removed.
    version._run_id = "0" * 32
    write_decision(store.client(), version, "it is the only one")
    changed = {"gate", "gate_reason", "decided_by", "decided_at", "decided_because"}
    assert tags(store, new).keys() == judged.keys() | changed
    assert tags(store, new)["gate_try"] == judged["gate_try"]


def as_registered(store: MlflowStore, version: int) -> int:
    """Leave a version the tags that training gives it."""
    client = store.client()
    client.set_model_version_tag(NAME, str(version), "head", "svm")
    for name in tags(store, version).keys() - {
        *("head", "val_accuracy", "test_accuracy", "test_coverage")
    }:
        client.delete_model_version_tag(NAME, str(version), name)
    return version


def put_aside(store: MlflowStore, version: int) -> list[dict[str, Any]]:
    client = store.client()
    run_id = str(client.get_model_version(NAME, str(version)).run_id)
    return [
        json.loads(Path(client.download_artifacts(run_id, file.path)).read_text())
        for file in client.list_artifacts(run_id, "decisions")
    ]
