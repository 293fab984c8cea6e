"""`python -m mlrg …` is `mlrg …`."""

import sys

from mlrg.cli import main

if __name__ == "__main__":
    sys.exit(main())
