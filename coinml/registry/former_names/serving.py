"""The former name of `coinml.registry.video_classifier`, which older registered models import."""

from coinml.registry.video_classifier import VideoClassifier

__all__ = ["VideoClassifier"]
