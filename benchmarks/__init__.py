"""Ratios of two things measured in one process. `python -m benchmarks` lists and runs them."""
