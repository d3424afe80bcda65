"""`python -m flows.cli`: the `coinml` command where no script of that name is on the PATH."""

from flows.cli import main

main()
