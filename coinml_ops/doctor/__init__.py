"""Checks whether this machine is ready for coinml; a file for each group of subjects."""
