"""Run the steps of a pipeline on a Ray cluster."""

from .backend import RayBackend
from .errors import ClusterUnreachable, NeedsAsyncio

__all__ = ["ClusterUnreachable", "NeedsAsyncio", "RayBackend"]
