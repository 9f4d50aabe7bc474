"""The static pages made from results."""

from sparsepriors.gallery.demo import Panel, write_demo
from sparsepriors.gallery.latents import latents_page
from sparsepriors.gallery.report import write_report

__all__ = ["Panel", "latents_page", "write_demo", "write_report"]
