"""`python -m coinml_cli`: the `coinml` command where no script of that name is on the PATH."""

from coinml_cli.app import main

main()
