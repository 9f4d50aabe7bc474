"""Real data that ships with packages, cached downloads, and simulators."""
