"""Run folders, evidence, progress and machine records."""
