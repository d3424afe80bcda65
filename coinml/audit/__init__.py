"""Auditing a dataset: doubtful labels, outliers, near-duplicates, and stills."""

from coinml.audit.run_audit import Audit, audit, audit_set, log_audit

__all__ = ["Audit", "audit", "audit_set", "log_audit"]
