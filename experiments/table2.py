"""Table 2 of the paper: python -m experiments.table2 --organ hippocampus --minutes 25."""

import sys

from experiments.cells.command import main
from experiments.cells.tables import TABLE2

if __name__ == "__main__":
    sys.exit(main(TABLE2))
