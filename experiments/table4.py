"""Table 4 of the paper: python -m experiments.table4 --organ hippocampus --minutes 25."""

import sys

from experiments.cells.command import main
from experiments.cells.tables import TABLE4

if __name__ == "__main__":
    sys.exit(main(TABLE4))
