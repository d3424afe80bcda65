"""One HTML page that shows a dataset's state, its heads and its embeddings, without a network."""

from coinml.report.page import write_report

__all__ = ["write_report"]
