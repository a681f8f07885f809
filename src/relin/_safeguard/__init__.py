"""Safeguards: how far to follow the displacement when re-linearising."""

from relin._safeguard._base import (
    AbstractSafeguard as AbstractSafeguard,
    StepScale as StepScale,
    check_safeguard as check_safeguard,
)
from relin._safeguard._grid_search import GridSearch as GridSearch
from relin._safeguard._line_search import LineSearch as LineSearch
from relin._safeguard._trust_region import TrustRegion as TrustRegion
