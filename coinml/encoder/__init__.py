"""Frozen video encoders: from a checkpoint's files to one vector per clip."""
