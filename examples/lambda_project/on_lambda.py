"""The same step on AWS Lambda: which function, and which key signs its tasks, says the environment (README.md)."""

from __future__ import annotations

from pseudonyms import Keys, pseudonym

from flujo.core import Flujo

flow = Flujo(pseudonym, resources=Keys(), backend="lambda")
