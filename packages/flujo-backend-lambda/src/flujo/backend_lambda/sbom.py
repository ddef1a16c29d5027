"""What an artifact is made of, as CycloneDX, and a signed statement of where it came from, as in-toto."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flujo.core import ConfigurationError, Signer, Verifier

from .envelope import Envelope, Signature, pae
from .versions import version_of

__all__ = ["STATEMENT_TYPE", "Component", "components_in", "sbom", "signed", "statement", "verified"]

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


def statement(name: str, digest: str, tree: str, components: Sequence[Component], python: str) -> bytes:
    """What is signed of an artifact: an in-toto statement with SLSA provenance."""
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{name}.zip", "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:flujo:lambda-build:1",
                "externalParameters": {"python": python, "tree": tree},
                "resolvedDependencies": [{"uri": part.purl} for part in components],
            },
            "runDetails": {"builder": {"id": f"urn:flujo:backend-lambda:{_own()}"}},
        },
    }
    return _json(made)


def signed(payload: bytes, signer: Signer) -> bytes:
    """A statement in its envelope. The type is part of what is signed: no statement is ever taken for a task."""
    signature = base64.b64encode(signer.sign(pae(STATEMENT_TYPE, payload))).decode()
    envelope = Envelope(
        payloadType=STATEMENT_TYPE,
        payload=base64.b64encode(payload).decode(),
        signatures=(Signature(keyid=signer.keyid, sig=signature),),
    )
    return envelope.model_dump_json().encode()


def verified(data: bytes, keys: Mapping[str, Verifier], digest: str) -> Mapping[str, Any]:
    """The statement in an envelope, once a key that is trusted has signed it and it speaks of the artifact `digest`.

    Raises:
        ConfigurationError: None has, or it speaks of something else.
    """
    what = f"artifact {digest[:12]} cannot be used"
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
    made: Mapping[str, Any] = json.loads(payload)
    if digest not in [subject.get("digest", {}).get("sha256") for subject in made.get("subject", [])]:
        raise ConfigurationError(what, "its statement speaks of another artifact", "Publish it again")
    return made


def _own() -> str:
    return version_of("flujo-backend-lambda") or "0"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
