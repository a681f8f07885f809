"""Training: the steps of a run, the loops that take them, and what surrounds them."""
