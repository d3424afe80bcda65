"""The page that Prometheus reads: what is collected, embedded, waiting and free."""
