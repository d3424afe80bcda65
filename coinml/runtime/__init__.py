"""This process and this machine: settings, processors, progress, and who owns a run."""
