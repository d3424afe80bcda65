"""Classifying failed downloads, and what follows from each fault."""

from coinml.faults.classification import POLICY, Fault, classify

__all__ = ["POLICY", "Fault", "classify"]
