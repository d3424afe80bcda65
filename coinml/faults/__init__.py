"""What a failed download means, and what happens next."""

from coinml.faults.classification import POLICY, Fault, classify

__all__ = ["POLICY", "Fault", "classify"]
