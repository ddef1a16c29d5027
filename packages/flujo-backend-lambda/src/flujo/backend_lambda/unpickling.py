"""The one place where something is unpickled: the code of a task whose envelope was checked."""

from __future__ import annotations

import base64
import binascii

from flujo.core import CodeBlob

from .blobs import Blob, BlobStore, unpacked
from .errors import Refusal
from .versions import PYTHON

__all__ = ["PACKER", "unpickled"]

PACKER = "cloudpickle"


def unpickled(code: CodeBlob, store: BlobStore | None) -> object:
    """The function in a blob. Only for a task whose envelope was checked: who made it holds a key that is trusted.

    Raises:
        Refusal: E_DIGEST, E_SIZE, E_BLOB, E_PICKLE, E_PYVER.
    """
    if code.packer != PACKER or code.python != PYTHON:
        raise Refusal("E_PYVER", f"the code was packed by {code.packer} of Python {code.python}, this is {PYTHON}")
    where = {"key": code.where} if code.where else {"text": code.data}
    text = unpacked(Blob(sha256=code.sha256, size=code.size, **where), store)
    import cloudpickle  # optional, and heavy for who never needs it

    try:
        return cloudpickle.loads(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise Refusal("E_PICKLE", "the code is no base64") from error
