"""Collecting videos: lease, rate limit, download, verify, rename, record."""
