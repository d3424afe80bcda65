"""The promotion gate, rollback, and listing versions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from coinml.errors import InvalidInputError, NoModelError, RegistryError, TransientError
from coinml.registry.promotion import promote, rollback
from coinml.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    has_version,
    list_versions,
    model_uri,
    point_alias,
    version_at,
)
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog
from tests.helpers.kitchen_dataset import MODEL, Trained
from tests.helpers.made_up_versions import NAME, candidate, holder, tags


def test_the_first_champion_must_beat_the_majority_class(store: MlflowStore) -> None:
    chance = candidate(store, right=0.35)
    (verdict,) = promote(store, NAME)
    assert (verdict.version, verdict.promoted) == (chance, False)
    assert "does not lie above the majority class (0.333)" in verdict.reason
    assert holder(store, CHAMPION) is None
    assert tags(store, chance)["gate"] == "refused"
    good = candidate(store, right=0.8)
    (verdict,) = promote(store, NAME)
    assert (verdict.version, verdict.promoted) == (good, True)
    assert holder(store, CHAMPION) == good
    assert holder(store, PREVIOUS) is None
    assert tags(store, good)["gate"] == "promoted"
    assert tags(store, good)["gate_reason"] == verdict.reason


def test_perfect_accuracy_on_two_videos_is_not_promoted(store: MlflowStore) -> None:
    candidate(store, right=1.0, ids=range(2))
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted


def test_a_better_challenger_is_promoted_and_the_old_champion_becomes_previous(
    store: MlflowStore,
) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.8)
    (verdict,) = promote(store, NAME)
    assert verdict.promoted
    assert f"better than champion {old} on 60 common val videos (+0.200" in verdict.reason
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (new, old)


@pytest.mark.parametrize(("right", "why"), [(0.4, "not better"), (0.6, "+0.000"), (0.65, "p = ")])
def test_a_challenger_that_is_not_significantly_better_is_refused(
    store: MlflowStore, right: float, why: str
) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=right)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert verdict.reason.startswith("not better than champion")
    assert why in verdict.reason
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (old, None)
    assert tags(store, new)["gate_reason"] == verdict.reason


def test_a_gain_on_too_few_common_videos_is_refused(store: MlflowStore) -> None:
    old = candidate(store, right=0.6, ids=range(60))
    promote(store, NAME)
    candidate(store, right=1.0, ids=range(56, 116))
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "on 4 common val videos" in verdict.reason
    candidate(store, right=1.0, ids=range(60, 120))
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "no video in common" in verdict.reason
    assert holder(store, CHAMPION) == old


def test_val_decides_and_test_can_veto(store: MlflowStore) -> None:
    old = candidate(store, right=0.6, test_right=0.8)
    promote(store, NAME)
    candidate(store, right=0.9, test_right=0.4)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "its test accuracy 0.400 lies below the champion's interval" in verdict.reason
    assert holder(store, CHAMPION) == old
    # A test accuracy within the champion's interval is accepted.
    new = candidate(store, right=0.9, test_right=0.75)
    assert promote(store, NAME)[0].promoted
    assert holder(store, CHAMPION) == new


def test_a_challenger_needs_enough_test_coverage(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.9, coverage=0.4)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "measured on 40% of the official test videos; 50% are needed" in verdict.reason
    (verdict,) = promote(store, NAME, [new], coverage_floor=0.3)
    assert verdict.promoted


def test_missing_classes_are_refused_and_additional_ones_are_accepted(store: MlflowStore) -> None:
    candidate(store, right=0.5)
    promote(store, NAME)
    for classes in (("Boil", "Cut"), ("Boil", "Cut", "Bake")):
        candidate(store, right=1.0, classes=classes)
        (verdict,) = promote(store, NAME)
        assert not verdict.promoted
        assert "not those of champion 1: it lacks Fry" in verdict.reason
    # The same videos and labels, plus videos of one additional class.
    more = candidate(store, right=0.95)
    run_id = store.client().get_model_version(NAME, str(more)).run_id
    table = store.read_table(run_id, "predictions")
    extra = pd.DataFrame(
        {"video_id": ["new"], "split": ["val"], "label": ["Bake"], "predicted": ["Bake"]}
    )
    RunLog(store.client(), run_id).table("predictions", pd.concat([table, extra]))
    assert promote(store, NAME)[0].promoted


def test_candidates_are_judged_best_on_val_first(store: MlflowStore) -> None:
    worse, better = candidate(store, right=0.6), candidate(store, right=0.7)
    verdicts = promote(store, NAME, [worse, better])
    assert [(v.version, v.promoted) for v in verdicts] == [(better, True), (worse, False)]
    assert holder(store, CHAMPION) == better


def test_judging_the_champion_again_changes_nothing(store: MlflowStore) -> None:
    version = candidate(store, right=0.8)
    (first,) = promote(store, NAME)
    (again,) = promote(store, NAME, [version])
    assert again == first
    assert holder(store, PREVIOUS) is None


def test_a_rollback_swaps_the_aliases_and_the_gate_does_not_undo_it(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    with pytest.raises(RegistryError, match="has no previous champion"):
        rollback(store, NAME)
    new = candidate(store, right=0.8)
    promote(store, NAME)
    verdict = rollback(store, NAME)
    assert (verdict.version, verdict.reason) == (old, f"rolled back from version {new}")
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (old, new)
    assert tags(store, new)["gate"] == "rolled back"
    (refused,) = promote(store, NAME, [new])
    assert not refused.promoted
    assert "another rollback brings it back" in refused.reason
    assert holder(store, CHAMPION) == old
    rollback(store, NAME)
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (new, old)
    assert promote(store, NAME, [new])[0].promoted


def test_a_version_with_the_champion_alias_is_promoted_even_if_its_tag_was_not_updated(
    store: MlflowStore,
) -> None:
    version = candidate(store, right=0.8)
    promote(store, NAME)
    store.client().set_model_version_tag(NAME, str(version), "gate", "passed")
    (verdict,) = promote(store, NAME)
    assert verdict.promoted
    assert tags(store, version)["gate"] == "promoted"


def test_missing_models_and_versions_are_named_in_the_error(store: MlflowStore) -> None:
    with pytest.raises(RegistryError, match="coin-task has no version; train one first"):
        promote(store, NAME)
    with pytest.raises(RegistryError, match="no version 7 of coin-task"):
        promote(store, NAME, [7])
    version = candidate(store, right=0.8)
    assert has_version(store, NAME, version)
    assert not has_version(store, NAME, 7)
    assert version_at(store, "another", CHAMPION) is None


def test_a_version_not_registered_by_coinml_is_not_judged(
    store: MlflowStore, tmp_path: Path
) -> None:
    client = store.client()
    client.create_registered_model(NAME)
    client.create_model_version(NAME, tmp_path.as_uri())
    with pytest.raises(RegistryError, match="no number in its tag 'val_accuracy'"):
        promote(store, NAME, [1])


def test_an_unreachable_registry_is_not_taken_for_one_without_a_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError):
        version_at(MlflowStore(uri="http://127.0.0.1:9", artifact_root=tmp_path), NAME, CHAMPION)


def test_versions_are_listed_with_aliases_and_gate_reasons(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.8)
    promote(store, NAME)
    rows = list_versions(store)
    assert [(row["version"], row["aliases"]) for row in rows] == [
        (new, ["champion"]),
        (old, ["previous"]),
    ]
    assert rows[0]["tags"]["gate"] == "promoted"
    assert list_versions(store, NAME) == rows
    assert list_versions(store, "another") == []


def test_trained_heads_pass_the_gate(trained: Trained) -> None:
    rows = {row["version"]: row for row in list_versions(trained.store, MODEL)}
    versions = [report.version for report in trained.reports.values()]
    assert sorted(rows) == sorted(versions)
    assert sum("champion" in row["aliases"] for row in rows.values()) == 1
    assert {row["tags"]["gate"] for row in rows.values()} == {"promoted", "refused"}
    assert model_uri(MODEL) == "models:/kitchen-task@champion"


def test_two_concurrent_registrations_both_set_the_alias(store: MlflowStore) -> None:
    client = store.client()
    for attempt in range(10):
        name = f"model{attempt}"
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, "file:///nowhere")
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(lambda v, name=name: point_alias(client, name, CHALLENGER, v), ("1", "2"))
            )
        assert str(client.get_model_version_by_alias(name, CHALLENGER).version) in ("1", "2")


def test_versions_without_a_verdict_are_the_default_candidates(store: MlflowStore) -> None:
    worse, better = candidate(store, right=0.6), candidate(store, right=0.9)
    verdicts = promote(store, NAME)
    assert [(verdict.version, verdict.promoted) for verdict in verdicts] == [
        (better, True),
        (worse, False),
    ]
    challenger = version_at(store, NAME, CHALLENGER)
    assert challenger is not None
    assert int(challenger.version) == worse
    later = candidate(store, right=0.61)
    assert [verdict.version for verdict in promote(store, NAME)] == [later]


def test_a_version_that_is_not_there_is_the_users_error_and_the_others_are_named(
    store: MlflowStore,
) -> None:
    with pytest.raises(NoModelError, match=r"no version 1 of coin-task .*: train one first"):
        promote(store, NAME, [1])
    for right in (0.3, 0.6):
        candidate(store, right=right)
    with pytest.raises(NoModelError, match=r"no version 99 of coin-task at .*; there are 2, 1$"):
        promote(store, NAME, [2, 99])
    # Exit code 2, as for every wrong input; and nothing was judged.
    assert issubclass(NoModelError, InvalidInputError)
    assert "gate" not in tags(store, 2)


def test_a_champion_is_never_the_challenger(store: MlflowStore) -> None:
    first = candidate(store, right=0.6)
    assert version_at(store, NAME, CHALLENGER) is not None
    promote(store, NAME)
    assert (holder(store, CHAMPION), holder(store, CHALLENGER)) == (first, None)
    # Nothing waits, and the champion stays it.
    (verdict,) = promote(store, NAME)
    assert (verdict.version, verdict.promoted) == (first, True)
    worse = candidate(store, right=0.5)
    promote(store, NAME)
    assert (holder(store, CHAMPION), holder(store, CHALLENGER)) == (first, worse)
    promote(store, NAME, [worse], because="the other one is too slow")
    assert (holder(store, CHAMPION), holder(store, CHALLENGER)) == (worse, None)
    assert holder(store, PREVIOUS) == first
    # The one before is asked about again, is refused, and comes back by hand.
    promote(store, NAME, [first])
    rollback(store, NAME)
    assert (holder(store, CHAMPION), holder(store, PREVIOUS)) == (first, worse)
    assert holder(store, CHALLENGER) is None


def test_a_decision_leaves_another_challenger(store: MlflowStore) -> None:
    first = candidate(store, right=0.6)
    second = candidate(store, right=0.5)
    promote(store, NAME)
    third = candidate(store, right=0.4)
    promote(store, NAME, [second], because="it knows more classes")
    assert (holder(store, CHAMPION), holder(store, CHALLENGER)) == (second, third)
    assert holder(store, PREVIOUS) == first


def test_the_challenger_predicts_if_there_is_no_champion(store: MlflowStore) -> None:
    from coinml.registry.predict import answering_alias

    with pytest.raises(RegistryError, match="train one"):
        answering_alias(store, NAME)
    candidate(store, right=0.3)
    promote(store, NAME)
    assert answering_alias(store, NAME) == CHALLENGER
    candidate(store, right=0.9)
    promote(store, NAME)
    assert answering_alias(store, NAME) == CHAMPION
