"""Heads: classifiers of embeddings, and how each is fitted, saved and loaded."""
