"""Is this machine fit for the work? A file of checks for each subject."""
