"""`python -m luring`."""

from luring.cli import main

if __name__ == "__main__":
    main()
