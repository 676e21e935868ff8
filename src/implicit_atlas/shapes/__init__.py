"""Masks become shapes: prepared occupancies with their frame, kept in shards, and what is observed of them."""
