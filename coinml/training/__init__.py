"""From an embedding set to a run and a registered version of each head."""
