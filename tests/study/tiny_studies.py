"""Settings with which a study of one's own takes seconds."""

from relin import study

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

EVERY_STUDY = [
    ("Essential", {"frozen_after": [4], "learnt_from": [4]}),
    ("Layers", {"layers": ["layers.0", "layers.1"]}),
    ("Timing", {"feature_updates": [4], "placements": ["early", "even"], "tolerances": [0.4]}),
    ("Stability", {"periods": [1, 4, "inf"], "parts": ["clip-3"], "tolerances": []}),
    ("Phase", {"totals": [20, 40], "updates": [0, 3]}),
    ("Width", {"widths": [4, 8], "kernel_probe": 8, "network_options": {"depth": 1}, "learning_rates": [0.3]}),
]
"""Those that train as `Frequency` does and take any loss and measure, each with the fewest runs that answer it."""


def answered(question, settings, folder):
    """The answer of one of them, of 40 steps of an MLP, 8 wide unless the settings say otherwise."""
    tiny = {"steps": 40, "batch_size": 16, "seeds": 2, "select_seeds": 1, "finalists": None, "num_records": 2}
    usual = {"network_options": {"width": 8, "depth": 1}}
    return getattr(study, question)(**usual | tiny | settings).run(folder, progress=False)
