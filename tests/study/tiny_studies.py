"""Settings with which a study of one's own takes seconds."""

TINY = {
    "periods": [1, "inf"],
    "sparse_periods": [],
    "tolerances": [],
    "learning_rates": [0.1],
    "steps": 8,
    "batch_size": 16,
    "seeds": 2,
    "select_seeds": 1,
    "finalists": None,
    "num_records": 2,
}
