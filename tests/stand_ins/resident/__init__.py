"""Stands in for a resident engine, without weights: same frames for same options, and faults on demand."""
