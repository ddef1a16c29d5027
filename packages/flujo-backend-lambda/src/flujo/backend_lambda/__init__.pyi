"""Public names for type checkers; see `__init__.py`."""

from .artifact import Artifact, build
from .backend import LambdaBackend
from .blobs import BlobStore, S3Blobs
from .claims import Claims, DynamoClaims, S3Claims
from .errors import (
    BadReply,
    LambdaFault,
    LeaseTooSmall,
    NotShippable,
    NotStored,
    PayloadTooLarge,
    Throttled,
    WorkerCrash,
)
from .keys import Ed25519Verifier, HmacKey
from .registry import ArtifactStore, FileArtifactStore, S3ArtifactStore, publish
from .report import Rates, Report
from .signing import Ed25519Signer
from .worker import LambdaWorker, worker_from

__all__ = [
    "Artifact",
    "ArtifactStore",
    "BadReply",
    "BlobStore",
    "Claims",
    "DynamoClaims",
    "Ed25519Signer",
    "Ed25519Verifier",
    "FileArtifactStore",
    "HmacKey",
    "LambdaBackend",
    "LambdaFault",
    "LambdaWorker",
    "LeaseTooSmall",
    "NotShippable",
    "NotStored",
    "PayloadTooLarge",
    "Rates",
    "Report",
    "S3ArtifactStore",
    "S3Blobs",
    "S3Claims",
    "Throttled",
    "WorkerCrash",
    "build",
    "publish",
    "worker_from",
]
