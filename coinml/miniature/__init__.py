"""A small COIN that is drawn here: its videos, the host that serves them, and a tiny encoder.

What a video shows is in `compositions`, `tasks` says which combinations are the six tasks, and
`drawing` turns scenes into frames. `host` serves a folder of videos and misbehaves to order;
`pretrain` made the weights of `tiny_encoder`.
"""
