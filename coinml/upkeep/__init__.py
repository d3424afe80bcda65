"""Keeping a home for years: its sizes, its copies elsewhere, and what is let go."""
