"""The plugin: stores by their URL."""

from __future__ import annotations

__all__ = ["flujo_api"]

flujo_api = "1.0"
