"""Keeping a home for years: its sizes, and what is let go."""
