"""The registered model as code: MLflow runs this file to load it, and unpickles nothing."""

from mlflow.models import set_model

from coinml.registry.video_classifier import VideoClassifier

set_model(VideoClassifier())
