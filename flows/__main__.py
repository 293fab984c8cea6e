"""`python -m flows …` is `latflow …`: what torchrun starts."""

import sys

from flows.cli import main

if __name__ == "__main__":
    sys.exit(main())
