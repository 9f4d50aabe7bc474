"""The static pages made from results."""
