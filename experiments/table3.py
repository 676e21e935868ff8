"""Table 3 of the paper: python -m experiments.table3 --organ hippocampus --minutes 25."""

import sys

from experiments.cells.command import main
from experiments.cells.tables import TABLE3

if __name__ == "__main__":
    sys.exit(main(TABLE3))
