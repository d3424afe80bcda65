"""MLflow: experiments, runs and what is logged to them."""
