"""The signed envelope of a task: DSSE, the format of in-toto and SLSA. Everything is checked before anything is used.

The order of checks: shape and type; signature, by a key the worker knows; lifetime and audience; then, where code
travels as a pickle, the versions of Python and cloudpickle; and last the digest of each part. Only who passed them
all may unpickle: on another minor version of Python that does not raise, it kills the process.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flujo.core import Signer, Verifier

from .blobs import Blob
from .errors import Refusal
from .versions import PYTHON, cloudpickle_version

__all__ = [
    "MAX_LIFETIME_S",
    "PAYLOAD_TYPE",
    "Code",
    "Envelope",
    "Header",
    "Signature",
    "check",
    "check_code",
    "opened",
    "pae",
    "sealed",
]

PAYLOAD_TYPE = "application/vnd.flujo.task.v1+json"
MAX_LIFETIME_S = 24 * 3600.0
SKEW_S = 30.0
"""Seconds by which two clocks may differ."""


class Signature(BaseModel):
    """One signature and the name of its key."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    keyid: str
    sig: str


class Envelope(BaseModel):
    """DSSE: the payload, its type, and who signed both."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    payloadType: str
    payload: str
    signatures: Annotated[tuple[Signature, ...], Field(max_length=8)]  # each costs a check, and anybody may send them


class Code(BaseModel):
    """What must hold before a function that travels as a pickle, in the task, may be touched.

    Attributes:
        python: Minor version of the Python that made it, e.g. `3.12`.
        cloudpickle: Version of cloudpickle that made it.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    python: str
    cloudpickle: str


class Header(BaseModel):
    """What is signed.

    Attributes:
        v: Version of this format.
        kind: `task` runs a step; `probe` asks what the worker is.
        task_id: One per attempt: what is claimed, so that it runs once.
        aud: The function it is for.
        iat: When it was made, in seconds since the epoch.
        exp: When it is void.
        reply_key: With it the worker marks its answer, and what it keeps of it, as made for this task.
        artifact: Digest of the artifact that the worker must be; None takes any.
        modules: What the worker must be able to import, so that it can say what is missing.
        body: The task, as JSON.
        code: What the step's function asks of the worker, where it travels as a pickle.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    v: Literal["flujo.task/1"] = "flujo.task/1"
    kind: Literal["task", "probe"] = "task"
    task_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")]
    aud: str
    iat: float
    exp: float
    reply_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    artifact: str | None = None
    modules: tuple[str, ...] = ()
    body: Blob
    code: Code | None = None

    @classmethod
    def make(
        cls,
        aud: str,
        body: Blob,
        *,
        lifetime_s: float,
        code: Code | None = None,
        modules: Sequence[str] = (),
        artifact: str | None = None,
        kind: Literal["task", "probe"] = "task",
    ) -> Header:
        """A header for a new task, valid from now on."""
        now = time.time()
        return cls(
            kind=kind,
            task_id=secrets.token_urlsafe(24),
            aud=aud,
            iat=now,
            exp=now + lifetime_s,
            reply_key=secrets.token_hex(32),
            artifact=artifact,
            modules=tuple(modules),
            body=body,
            code=code,
        )


def sealed(header: Header, signer: Signer) -> bytes:
    """The event for the function."""
    payload = header.model_dump_json(exclude_none=True).encode()
    signature = Signature(keyid=signer.keyid, sig=base64.b64encode(signer.sign(pae(PAYLOAD_TYPE, payload))).decode())
    coded = base64.b64encode(payload).decode()
    return Envelope(payloadType=PAYLOAD_TYPE, payload=coded, signatures=(signature,)).model_dump_json().encode()


def opened(event: object, keys: Mapping[str, Verifier]) -> Header:
    """What an event carries, once a key that is known has signed it.

    Raises:
        Refusal: E_SHAPE, E_TYPE, E_SIG.
    """
    try:
        envelope = Envelope.model_validate(event)
    except ValidationError as error:
        raise Refusal("E_SHAPE", "the event is no signed envelope", "Invoke the function by Flujo") from error
    if envelope.payloadType != PAYLOAD_TYPE:
        raise Refusal("E_TYPE", f"payload type {envelope.payloadType[:80]!r} is not known here")
    payload = _decoded(envelope.payload)
    signed = pae(PAYLOAD_TYPE, payload)
    # What verifies is the kind of the key that is held, never a word of the message.
    known = ((keys.get(one.keyid), one.sig) for one in envelope.signatures)
    if not any(key is not None and key.verify(signed, _decoded(sig)) for key, sig in known):
        raise Refusal("E_SIG", "no key that this worker trusts has signed it", "Compare FLUJO_LAMBDA_PUBLIC_KEYS")
    try:
        return Header.model_validate_json(payload)
    except ValidationError as error:
        raise Refusal("E_SHAPE", "the signed part is no task of this version", "Deploy the same version") from error


def check(header: Header, audience: str, *, now: float | None = None) -> None:
    """Check what a signed header says of itself.

    Raises:
        Refusal: E_EXPIRED, E_LIFETIME, E_AUD.
    """
    now = time.time() if now is None else now
    if now > header.exp:
        raise Refusal("E_EXPIRED", f"it is void since {now - header.exp:.0f} s", "Check both clocks")
    if header.iat > now + SKEW_S:
        raise Refusal("E_LIFETIME", f"it was made {header.iat - now:.0f} s in the future", "Check both clocks")
    if not 0 < header.exp - header.iat <= MAX_LIFETIME_S:
        raise Refusal("E_LIFETIME", f"it would be valid for longer than {MAX_LIFETIME_S:.0f} s")
    if header.aud != audience:
        raise Refusal("E_AUD", f"it is for function {header.aud!r}, this is {audience!r}")


def check_code(code: Code) -> None:
    """Check that a pickle was made by this Python and this cloudpickle, before it is touched.

    Raises:
        Refusal: E_PYVER, E_PICKLE.
    """
    if code.python != PYTHON:
        why = f"the code was pickled by Python {code.python}, this worker is Python {PYTHON}"
        raise Refusal("E_PYVER", why, "Run both on the same minor version, or put the step in a module of the artifact")
    here = cloudpickle_version()
    if here is None:
        raise Refusal("E_PICKLE", "the worker has no cloudpickle", "Add cloudpickle to the artifact")
    if code.cloudpickle.split(".")[0] != here.split(".")[0]:
        why = f"the code was pickled by cloudpickle {code.cloudpickle}, this worker has {here}"
        raise Refusal("E_PICKLE", why, "Install the same version on both sides")


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed. The type is in it."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("E_SHAPE", "a part of the envelope is no base64") from error
