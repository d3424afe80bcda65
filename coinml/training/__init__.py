"""Training: from an embedding set to an MLflow run and a registered version of each head."""
