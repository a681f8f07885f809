"""A small study and a small network, for the command line."""

SPEC = """
model_options = { width = 8, depth = 1 }
steps = 600
batch_size = 32
periods = [1, 4, "inf"]
learning_rates = [0.1, 0.01]
seeds = 8
select_seeds = 2
num_records = 4
probe_size = 32
"""
NUM_PACKS = 2 * 2 + 6
SMALL = ["--set", "model_options={width=8, depth=1}"]
