"""Which videos there are: annotations, class folders, taxonomy, splits and targets."""
