"""What an artifact is made of, as CycloneDX, and a signed statement of where it came from, as in-toto."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flujo.core import ConfigurationError, Signer, Verifier

from .envelope import Envelope, Signature, pae
from .versions import version_of

__all__ = ["STATEMENT_TYPE", "Asked", "Component", "Origin", "components_in", "sbom", "signed", "statement", "verified"]

STATEMENT_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """A distribution in an artifact."""

    name: str
    version: str
    license: str = ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{self.version}"


class Origin(BaseModel):
    """What an artifact is, as its statement says.

    Attributes:
        name: Its name.
        version: Its version.
        digest: SHA-256 of the zip.
        tree: Digest of what is in it.
        python: Minor version of the Python it was built for.
        machine: `x86_64` or `arm64`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    name: str
    version: str
    digest: str
    tree: str
    python: str
    machine: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Which artifact is asked for: by name and version, or by its digest. What is said of it must all be true."""

    name: str | None = None
    version: str | None = None
    digest: str | None = None

    def is_answered_by(self, made: Origin) -> bool:
        """Whether an artifact is the one that was asked for."""
        pairs = ((self.name, made.name), (self.version, made.version), (self.digest, made.digest))
        return all(asked in (None, there) for asked, there in pairs)

    def __str__(self) -> str:
        named = [part for part in (self.name, self.version) if part is not None]
        return " ".join([*named, *([] if self.digest is None else [f"artifact {self.digest[:12]}"])])


def components_in(folder: Path) -> list[Component]:
    """Distributions that are installed in a folder, by their metadata."""
    found = []
    for path in folder.glob("*.dist-info/METADATA"):
        told = HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))
        name, license = str(told["Name"]), str(told["License-Expression"] or told["License"] or "")
        found.append(Component(name, str(told["Version"]), license if len(license) < 80 else ""))
    return sorted(found)


def sbom(name: str, version: str, tree: str, components: Iterable[Component]) -> bytes:
    """A bill of materials in CycloneDX 1.6: the same for the same content, so it has no date."""
    parts = [
        {
            "type": "library",
            "bom-ref": part.purl,
            "name": part.name,
            "version": part.version,
            "purl": part.purl,
            **({"licenses": [{"license": {"name": part.license}}]} if part.license else {}),
        }
        for part in components
    ]
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, tree)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"{name}@{version}",
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": tree}],
            },
            "tools": {"components": [{"type": "application", "name": "flujo-backend-lambda", "version": _own()}]},
        },
        "components": parts,
        "dependencies": [{"ref": f"{name}@{version}", "dependsOn": [str(part["bom-ref"]) for part in parts]}],
    }
    return _json(bom)


def statement(made: Origin, components: Sequence[Component]) -> bytes:
    """What is signed of an artifact: an in-toto statement with SLSA provenance."""
    told = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{made.name}-{made.version}.zip", "digest": {"sha256": made.digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:flujo:lambda-build:1",
                "externalParameters": made.model_dump(exclude={"digest"}),
                "resolvedDependencies": [{"uri": part.purl} for part in components],
            },
            "runDetails": {"builder": {"id": f"urn:flujo:backend-lambda:{_own()}"}},
        },
    }
    return _json(told)


def signed(payload: bytes, signer: Signer) -> bytes:
    """A statement in its envelope. The type is part of what is signed: no statement is ever taken for a task."""
    signature = base64.b64encode(signer.sign(pae(STATEMENT_TYPE, payload))).decode()
    envelope = Envelope(
        payloadType=STATEMENT_TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(Signature(keyid=signer.keyid, sig=signature),),
    )
    return envelope.model_dump_json().encode()


def verified(data: bytes, keys: Mapping[str, Verifier], asked: Asked) -> Origin:
    """What the statement in an envelope says, once a key that is trusted has signed it and it speaks of what was asked.

    Raises:
        ConfigurationError: None has, or it speaks of something else.
    """
    what = f"{asked} cannot be used"
    try:
        envelope = Envelope.model_validate_json(data)
        payload = base64.b64decode(envelope.payload, validate=True)
        pairs = [(keys.get(one.keyid), base64.b64decode(one.sig, validate=True)) for one in envelope.signatures]
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(what, "its statement is no signed envelope", "Publish it again") from error
    text = pae(STATEMENT_TYPE, payload)
    right = envelope.payloadType == STATEMENT_TYPE
    if not right or not any(key is not None and key.verify(text, sig) for key, sig in pairs):
        raise ConfigurationError(what, "no key that is trusted has signed its statement", "Compare the keys")
    made = _read(payload, what)
    if not asked.is_answered_by(made):
        why = f"its statement speaks of another artifact: {made.name} {made.version}, {made.digest[:12]}"
        raise ConfigurationError(what, why, "Look who can write into the store, and publish it as another version")
    return made


def _read(payload: bytes, what: str) -> Origin:
    try:
        told = json.loads(payload)
        [subject], build = told["subject"], told["predicate"]["buildDefinition"]
        return Origin.model_validate({**build["externalParameters"], "digest": subject["digest"]["sha256"]})
    except (ValueError, LookupError, TypeError) as error:  # signed, but by another version of Flujo, or another tool
        why = "its statement does not say name, version, Python and machine"
        raise ConfigurationError(what, why, "Publish it as another version") from error


def _own() -> str:
    return version_of("flujo-backend-lambda") or "0"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
