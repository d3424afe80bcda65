"""One self-contained HTML page on a dataset's collection, heads and embeddings."""

from coinml.report.page import write_report

__all__ = ["write_report"]
