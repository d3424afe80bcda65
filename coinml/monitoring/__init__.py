"""Monitoring a registered model: scoring new files, and comparing them with its training set."""
