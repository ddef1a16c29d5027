"""Run the steps of a pipeline on a Ray cluster."""

from .backend import RayBackend
from .errors import NeedsAsyncio

__all__ = ["NeedsAsyncio", "RayBackend"]
