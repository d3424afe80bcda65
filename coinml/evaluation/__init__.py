"""Evaluation: metrics of heads with intervals, paired tests, calibration and leaks."""
