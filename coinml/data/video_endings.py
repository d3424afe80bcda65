"""Extensions of video files, for collecting, importing and folder datasets."""

from __future__ import annotations

VIDEO_ENDINGS = (
    ".mp4",
    ".webm",
    ".mkv",
    ".m4v",
    ".mov",
    ".avi",
    ".flv",
    ".3gp",
    ".ts",
    ".mts",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".ogv",
)
"""Extensions in lower case, the most frequent ones first."""
