"""Self-supervised pre-training of VideoMAE on the collected training videos."""
