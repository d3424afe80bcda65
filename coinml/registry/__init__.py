"""Registered models: versions, the gate before the champion, and prediction."""
