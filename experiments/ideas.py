"""Ideas beyond the paper, as an ablation: python -m experiments.ideas --steps 400 --seeds 2 --minutes 25."""

import sys

from experiments.cells.command import main
from experiments.cells.tables import IDEAS

if __name__ == "__main__":
    sys.exit(main(IDEAS))
