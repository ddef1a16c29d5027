"""Public names for type checkers; see `__init__.py`."""

from .backend import LambdaBackend
from .blobs import BlobStore, S3Blobs
from .claims import Claims, DynamoClaims, S3Claims
from .errors import BadReply, LambdaFault, NotShippable, PayloadTooLarge, Throttled, WorkerCrash
from .keys import Ed25519Signer, Ed25519Verifier, HmacKey, Signer, Verifier
from .report import Rates, Report
from .worker import LambdaWorker, worker_from

__all__ = [
    "BadReply",
    "BlobStore",
    "Claims",
    "DynamoClaims",
    "Ed25519Signer",
    "Ed25519Verifier",
    "HmacKey",
    "LambdaBackend",
    "LambdaFault",
    "LambdaWorker",
    "NotShippable",
    "PayloadTooLarge",
    "Rates",
    "Report",
    "S3Blobs",
    "S3Claims",
    "Signer",
    "Throttled",
    "Verifier",
    "WorkerCrash",
    "worker_from",
]
