"""A small synthetic COIN: its videos, a host that serves them with faults, and a tiny encoder.

`scenes` describes what a video shows, `tasks` defines the six tasks, and `drawing` renders scenes
to frames. `host` serves a folder of videos with the faults of a `fault_plan`. `pretrain` trains the
tiny encoder; `tiny_checkpoint` has the path of its files.
"""
