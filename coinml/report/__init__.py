"""One self-contained HTML page on a dataset's collection, heads and embeddings."""

from coinml.report.page import check_report, write_report

__all__ = ["check_report", "write_report"]
