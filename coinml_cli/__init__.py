"""The `coinml` command: a file for each group of commands."""
