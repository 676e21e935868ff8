"""The paper's experiments, each a list of cells that one command runs, keeps and sets beside the paper's numbers."""
