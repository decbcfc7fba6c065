"""`python -m luring`."""

from luring.cli import main

main()
