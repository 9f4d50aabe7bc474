"""The static pages made from results."""

from sparsepriors.gallery.demo import Panel, write_demo
from sparsepriors.gallery.report import write_report

__all__ = ["Panel", "write_demo", "write_report"]
