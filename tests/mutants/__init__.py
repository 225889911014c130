"""One-line mistakes on purpose, and the tests that must notice them: ``make mutants``."""
