"""Summaries of measurements: one table as text, one as HTML."""
