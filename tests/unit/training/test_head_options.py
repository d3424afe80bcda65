"""Options of heads that are set by hand."""

from __future__ import annotations

import pytest

from coinml.errors import InvalidInputError
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.head_options import parse_head_options
from coinml.training.options import TrainOptions
from coinml_cli.model_options import build
from tests.helpers.kitchen_dataset import EmbeddedDataset, train


def test_values_have_the_types_of_the_trainers_defaults() -> None:
    assert parse_head_options(
        [
            "mlp.class_weights=balanced",
            "mlp.hidden=64,32",
            "mlp.shortcut=false",
            "mlp.lr=2e-3",
            "mlp.epochs=7",
            "svm.kernels=linear",
            "svm.linear_cs=0.1, 1",
            "knn.ks = 3",
        ],
        ["mlp", "svm", "knn"],
    ) == {
        "mlp": {
            "class_weights": "balanced",
            "hidden": [64, 32],
            "shortcut": False,
            "lr": 2e-3,
            "epochs": 7,
        },
        "svm": {"kernels": ["linear"], "linear_cs": [0.1, 1.0]},
        "knn": {"ks": [3]},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("balanced", r"--set 'balanced': allowed is HEAD\.OPTION=VALUE"),
        ("mlp.lr", r"allowed is HEAD\.OPTION=VALUE"),
        ("lr=1", r"allowed is HEAD\.OPTION=VALUE"),
        ("forest.depth=3", "heads forest: allowed are mlp, svm, attentive, logreg, knn"),
        ("logreg.cs=1", "logreg is not trained; trained are mlp, svm, knn, attentive"),
        ("mlp.depth=3", "mlp has no option 'depth'; it has hidden, shortcut, .*class_weights"),
        # Given for every head, by options of their own.
        ("mlp.seed=3", "mlp has no option 'seed'"),
        ("mlp.class_weights=foo", "mlp.class_weights 'foo': allowed are none, balanced"),
        ("mlp.lr=fast", "'fast' is not a number"),
        ("mlp.lr=nan", "'nan' is not a number"),
        ("mlp.lr=", "'' is not a number"),
        ("mlp.lr=-1", "mlp.lr is -1.0; a positive number is allowed"),
        ("mlp.dropout=1", "mlp.dropout is 1.0; 0 <= dropout < 1 is allowed"),
        ("mlp.epochs=2.5", "'2.5' is not a whole number"),
        ("mlp.shortcut=2", "'2' is not true or false"),
        ("mlp.hidden=64,", "'' is not a whole number"),
        ("mlp.hidden=0", r"mlp.hidden is \[0\]; widths of 1 or more are allowed"),
        ("attentive.width=3", "attentive.width 3 is not a multiple of attention_heads 4"),
        ("svm.kernels=poly", r"svm.kernels \['poly'\]: any of \['linear', 'rbf'\] is allowed"),
        ("svm.cs=0", r"svm.cs \[0.0\]: positive numbers are allowed"),
        ("knn.ks=0", r"knn.ks \[0\]: positive numbers are allowed"),
    ],
)
def test_what_is_not_allowed_is_told_with_what_is(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        build(TrainOptions, {"heads": "mlp,svm,knn,attentive", "head_options": [text]})


def test_an_option_may_be_set_once() -> None:
    with pytest.raises(InvalidInputError, match=r"mlp\.lr is set twice"):
        build(TrainOptions, {"head_options": ["mlp.lr=1e-3", "mlp.lr=2e-3"]})


def test_each_head_has_its_own_and_nothing_is_set_by_default() -> None:
    options = TrainOptions(head_options=("mlp.lr=2e-3", "svm.cs=1,10"))
    assert options.options_of("mlp") == {"lr": 2e-3}
    assert options.options_of("svm") == {"cs": [1.0, 10.0]}
    assert TrainOptions(head_options="mlp.lr=2e-3").options_of("svm") == {}
    assert TrainOptions().options_of("mlp") == {}
    # As Prefect sends it to a worker.
    assert TrainOptions.model_validate_json(options.model_dump_json()) == options


def test_what_is_set_is_in_the_run_and_makes_another_training(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    set_by_hand = TrainOptions(head_options=("mlp.class_weights=balanced", "mlp.epochs=3"))
    given = dict(set_by_hand.options_of("mlp"))
    first = train("mlp", store, material, options=given)
    params = store.read_run(first.run_id).data.params
    assert (params["class_weights"], params["epochs"]) == ("balanced", "3")
    assert train("mlp", store, material, options=given).reused
    assert not train("mlp", store, material, options={**given, "epochs": 4}).reused
