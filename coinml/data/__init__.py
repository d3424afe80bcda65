"""Datasets: annotations, class folders, taxonomy, splits and targets."""
