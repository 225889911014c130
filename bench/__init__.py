"""Measures times outside the tests, as medians and ratios; both sides of a ratio run in the same call."""
