"""Training one head."""
