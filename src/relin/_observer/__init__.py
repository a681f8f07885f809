"""Observers: what is measured while training."""

from relin._observer._base import AbstractObserver as AbstractObserver
from relin._observer._frozen_kernel import FrozenKernelAccuracy as FrozenKernelAccuracy
from relin._observer._geometry import LinearisationError as LinearisationError, Movement as Movement
from relin._observer._kernel_drift import KernelDrift as KernelDrift
from relin._observer._performance import Performance as Performance
from relin._observer._sharpness import Sharpness as Sharpness
