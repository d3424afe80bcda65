"""From a list of flaky YouTube videos to a video classifier that one can trust.

The names of `__all__` are imported when they are first used. Their types are in `__init__.pyi`,
and docs/python.md shows what to do with them.
"""

_PLACES = {
    "EmbeddingSet": "coinml.embedding_sets:EmbeddingSet",
    "Ledger": "coinml.ledger:Ledger",
    "MlflowStore": "coinml.tracking.mlflow_store:MlflowStore",
    "build_table": "coinml.embedding_sets.table:build_table",
    "collect": "coinml.collection.whole_dataset:collect",
    "compare": "coinml.tracking.compare_runs:compare_runs",
    "embed": "coinml.embedding.whole_dataset:embed",
    "load_dataset": "coinml.data.annotations:load_dataset",
    "load_encoder": "coinml.encoder.clip_encoder:load_encoder",
    "load_training_data": "coinml.training.training_data:load_training_data",
    "predict_files": "coinml.registry.predict:predict_files",
    "promote": "coinml.registry.promotion:promote",
    "train_head": "coinml.training.train_head:train_head",
}
__all__ = list(_PLACES)

# MLflow loads a registered model by a file that imports `coinml.…`. In a process that has loaded
# this coinml, the modules of older models are looked up here by the names that they had.
__path__ = [*__path__, f"{__path__[0]}/registry/former_names"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pkgutil import resolve_name

    return globals().setdefault(name, resolve_name(_PLACES[name]))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
