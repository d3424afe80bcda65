"""This process and this machine: settings, folders, CPUs, process identity, progress."""
