"""From a list of flaky YouTube videos to a video classifier that one can trust."""
