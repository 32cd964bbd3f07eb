"""Stands in the way of python-prctl: as if it were not installed."""

raise ImportError("fake: not installed")
