"""Organs that nothing was chosen on: python -m experiments.own --organ kidney --steps 1000 --iterations 100."""

import sys

from experiments.cells.command import main
from experiments.cells.tables import OWN

if __name__ == "__main__":
    sys.exit(main(OWN))
