"""One HTML file that says what a trained model is: opens offline, with surfaces to turn and scores to look through."""

from implicit_atlas.report.build import write_report

__all__ = ["write_report"]
