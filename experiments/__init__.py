"""The paper's experiments and those of the uses of an atlas: every file here is a command that keeps what it found.

`cells` runs and keeps a cell of a table, `peers` holds what ours is set beside, and `results` what was measured.
"""
