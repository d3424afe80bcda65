from coinml.collection.whole_dataset import collect as collect
from coinml.data.annotations import load_dataset as load_dataset
from coinml.embedding.whole_dataset import embed as embed
from coinml.embedding_sets import EmbeddingSet as EmbeddingSet
from coinml.embedding_sets.table import build_table as build_table
from coinml.encoder.clip_encoder import load_encoder as load_encoder
from coinml.ledger import Ledger as Ledger
from coinml.registry.predict import predict_files as predict_files
from coinml.registry.promotion import promote as promote
from coinml.tracking.compare_runs import compare_runs as compare
from coinml.tracking.mlflow_store import MlflowStore as MlflowStore
from coinml.training.train_head import train_head as train_head
from coinml.training.training_data import load_training_data as load_training_data

__all__ = [
    "EmbeddingSet",
    "Ledger",
    "MlflowStore",
    "build_table",
    "collect",
    "compare",
    "embed",
    "load_dataset",
    "load_encoder",
    "load_training_data",
    "predict_files",
    "promote",
    "train_head",
]
