"""`python -m client` is the `bonsai` command."""

from client.cli import main

main()
