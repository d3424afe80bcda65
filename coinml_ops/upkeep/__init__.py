"""Copies of a home, and the way back."""
