"""Timings, which have no place among the tests: medians and ratios, both sides in one run."""
