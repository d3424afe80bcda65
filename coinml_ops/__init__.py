"""What runs coinml for weeks: servers, workers, deployments and their diagnosis."""
