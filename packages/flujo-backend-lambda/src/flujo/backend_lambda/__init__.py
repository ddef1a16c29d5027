"""Steps of Flujo pipelines on AWS Lambda: signed tasks, one execution per attempt, billed time under the budget.

Names are loaded when they are first used, so that a worker's cold start does not pay for the client's side.
`__init__.pyi` lists the same names for type checkers; a test keeps the two equal.
"""

from importlib import import_module

_NAMES_OF_MODULE = {
    "artifact": "Artifact build",
    "backend": "LambdaBackend",
    "blobs": "BlobStore S3Blobs",
    "claims": "Claims DynamoClaims S3Claims",
    "errors": "BadReply LambdaFault LeaseTooSmall NotShippable NotStored PayloadTooLarge Throttled WorkerCrash",
    "keys": "Ed25519Verifier HmacKey",
    "registry": "ArtifactStore FileArtifactStore S3ArtifactStore publish",
    "report": "Rates Report",
    "signing": "Ed25519Signer",
    "worker": "LambdaWorker worker_from",
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names.split()}

__all__ = list(_MODULE_OF_NAME)


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562) and keep it, so that this is called once for each."""
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE_OF_NAME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
