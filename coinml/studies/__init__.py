"""Studies: how training data, clips, tokens and picture size change accuracy and cost."""
