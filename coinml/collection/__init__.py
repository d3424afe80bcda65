"""From a list of ids to files that decode: lease, pace, fetch, verify, rename, record."""
