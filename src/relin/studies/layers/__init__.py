"""Which layers need feature updates?"""

from relin.studies.layers.settings import LayersSpec
from relin.study._grid_study import AbstractGridStudy


class Layers(AbstractGridStudy[LayersSpec]):
    """Which layers need feature updates?"""

    name = "layers"
    settings = LayersSpec


STUDY = Layers
