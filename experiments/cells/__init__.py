"""How a cell of a table is run, kept and shown: a method, the shapes that it learns from, and its scores."""
