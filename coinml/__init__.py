"""From a list of flaky YouTube videos to a video classifier that one can trust."""

# MLflow loads a registered model by a file that imports `coinml.…`. In a process that has loaded
# this coinml, the modules of older models are looked up here by the names that they had.
__path__ = [*__path__, f"{__path__[0]}/registry/former_names"]
