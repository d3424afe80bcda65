"""Frozen video encoders: from a checkpoint's files to one vector a clip."""
