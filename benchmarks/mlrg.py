"""`python benchmarks/mlrg.py CASE`: runs benchmarks/renormalization/courses.py, see there.

This file bears the name of the package that it measures, so its folder must not be where imports are looked for.
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path[0] = str(folder / "renormalization")
    runpy.run_path(str(folder / "renormalization" / "courses.py"), run_name="__main__")
