"""MLflow runs this file to load the registered model, so that nothing is unpickled."""

from mlflow.models import set_model

from coinml.registry.video_classifier import VideoClassifier

set_model(VideoClassifier())
