"""A resident engine without weights: the same frames for the same options, and faults on demand, in a real worker."""
