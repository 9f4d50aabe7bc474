"""How prior and measurement meet."""
