"""Artifacts: the same bytes for the same content, nothing overwritten, nothing deployed that nobody signed."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from lambda_kit import BUCKET

from flujo.backend_lambda import (
    Artifact,
    ArtifactStore,
    Ed25519Signer,
    FileArtifactStore,
    S3ArtifactStore,
    build,
    publish,
)
from flujo.backend_lambda.packing import MARKER, pack, tree_digest
from flujo.backend_lambda.registry import store_at
from flujo.backend_lambda.sbom import components_in, verified
from flujo.core import ConfigurationError


def fill(folder: Path) -> Path:
    """A folder as uv leaves it."""
    (folder / "pkg" / "__pycache__").mkdir(parents=True)
    (folder / "pkg" / "__init__.py").write_text("x = 1\n")
    (folder / "pkg" / "__pycache__" / "x.pyc").write_bytes(b"\xa7\r\r\n\0\0\0\0" + os.urandom(8))
    (folder / "pkg" / "__pycache__" / "y.pyc").write_bytes(b"\xa7\r\r\n\1\0\0\0 unchecked")
    (folder / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "pkg" / "run.sh").chmod(0o755)
    info = folder / "pkg-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: Pkg_One\nVersion: 1.2\nLicense-Expression: MIT\n\nText\n"
    )
    (info / "entry_points.txt").write_text("[flujo]\n")
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        (info / name).write_text(str(os.urandom(4)))
    return folder


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = fill(tmp_path / "made")
    return Artifact("pkg", "1", "3.12", pack(folder), tuple(components_in(folder)))


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "folder":
        return FileArtifactStore(tmp_path / "store")
    return S3ArtifactStore(BUCKET, prefix="x/", client=request.getfixturevalue("s3"))


def test_the_same_content_is_the_same_zip_whenever_and_wherever_it_was_made(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one"), fill(tmp_path / "two")
    for path in two.rglob("*"):
        os.utime(path, (1, 1))
    first, second = pack(one), pack(two)
    assert first.data == second.data
    assert first.digest == second.digest
    (two / "pkg" / "__init__.py").write_text("x = 2\n")
    assert pack(two).tree != first.tree


def test_a_zip_has_what_plugins_need_and_nothing_that_differs(artifact: Artifact) -> None:
    with zipfile.ZipFile(io.BytesIO(artifact.packed.data)) as archive:
        names = archive.namelist()
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
        marker = json.loads(archive.read(MARKER))
    assert names == sorted(names)
    kept = {
        "pkg/__pycache__/y.pyc",
        "pkg/__init__.py",
        "pkg/run.sh",
        "pkg-1.2.dist-info/METADATA",
        "pkg-1.2.dist-info/entry_points.txt",
    }
    assert set(names) == {*kept, MARKER}
    assert (modes["pkg/run.sh"], modes["pkg/__init__.py"]) == (0o755, 0o644)
    assert marker["tree"] == artifact.packed.tree == tree_digest(artifact.packed.files)


def test_what_aws_cannot_unpack_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flujo.backend_lambda.packing.UNZIPPED_LIMIT", 10)
    with pytest.raises(ConfigurationError, match="AWS unpacks 1 to 10 bytes"):
        pack(fill(tmp_path / "made"))
    with pytest.raises(ConfigurationError, match="0 files"):
        pack(tmp_path / "nothing")


def test_the_bill_of_materials_is_cyclonedx_and_the_same_each_time(artifact: Artifact) -> None:
    bom = json.loads(artifact.sbom)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    assert [part["purl"] for part in bom["components"]] == ["pkg:pypi/pkg-one@1.2"]
    assert bom["components"][0]["licenses"] == [{"license": {"name": "MIT"}}]
    assert bom["metadata"]["component"]["hashes"][0]["content"] == artifact.packed.tree
    assert bom["dependencies"][0]["dependsOn"] == ["pkg:pypi/pkg-one@1.2"]
    assert artifact.sbom == artifact.sbom
    assert "timestamp" not in artifact.sbom.decode()


def test_what_is_published_is_found_whole(store: ArtifactStore, artifact: Artifact) -> None:
    signer = Ed25519Signer.generate()
    digest = publish(store, artifact, signer)
    assert store.resolve("pkg", "1") == digest == artifact.digest
    assert store.get(digest) == artifact.packed.data
    assert json.loads(store.attached(digest, "manifest"))["files"] == artifact.packed.files
    assert store.attached(digest, "sbom") == artifact.sbom
    made = verified(store.attached(digest, "statement"), {signer.keyid: signer.verifier}, digest)
    assert made["subject"] == [{"name": "pkg.zip", "digest": {"sha256": digest}}]
    assert publish(store, artifact, signer) == digest  # once more is nothing new


def test_a_statement_counts_only_for_its_artifact_and_by_a_trusted_key(
    store: ArtifactStore, artifact: Artifact
) -> None:
    signer, stranger = Ed25519Signer.generate(), Ed25519Signer.generate()
    digest = publish(store, artifact, signer)
    data = store.attached(digest, "statement")
    for keys, about, words in (
        ({stranger.keyid: stranger.verifier}, digest, "no key that is trusted"),
        ({signer.keyid: stranger.verifier}, digest, "no key that is trusted"),
        ({signer.keyid: signer.verifier}, "0" * 64, "speaks of another artifact"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            verified(data, keys, about)
    with pytest.raises(ConfigurationError, match="no signed envelope"):
        verified(b"{}", {}, digest)


def test_a_version_is_never_another_artifact(store: ArtifactStore, artifact: Artifact) -> None:
    publish(store, artifact, Ed25519Signer.generate())
    other = store.put(b"other")
    with pytest.raises(ConfigurationError, match="Take another version"):
        store.name("pkg", "1", other)
    assert store.resolve("pkg", "1") == artifact.digest


@pytest.mark.parametrize("word", ["../x", "", "a/b", ".hidden", "x" * 200])
def test_names_are_words_and_digests_are_digests(store: ArtifactStore, word: str) -> None:
    with pytest.raises(ConfigurationError):
        store.resolve(word, "1")
    with pytest.raises(ConfigurationError):
        store.get(word)


def test_an_artifact_that_was_changed_is_not_read(tmp_path: Path, artifact: Artifact) -> None:
    store = FileArtifactStore(tmp_path / "store")
    digest = store.put(artifact.packed.data)
    (tmp_path / "store" / "artifacts" / "sha256" / f"{digest}.zip").write_bytes(b"changed")
    with pytest.raises(ConfigurationError, match="its bytes were changed"):
        store.get(digest)
    with pytest.raises(ConfigurationError, match="not there"):
        store.get("0" * 64)


def test_an_object_of_the_bucket_is_not_overwritten(s3: Any) -> None:
    store = S3ArtifactStore(BUCKET, client=s3)
    digest = store.put(b"one")
    s3.put_object(Bucket=BUCKET, Key=store.key(digest), Body=b"two")
    assert store.put(b"one") == digest
    with pytest.raises(ConfigurationError, match="its bytes were changed"):
        store.get(digest)


def test_a_store_is_named_by_its_url(tmp_path: Path) -> None:
    found = store_at("s3://bucket/some/prefix")
    assert isinstance(found, S3ArtifactStore)
    assert (found.bucket, found.prefix) == ("bucket", "some/prefix/")
    assert isinstance(store_at(str(tmp_path)), FileArtifactStore)
    with pytest.raises(ConfigurationError, match="names no bucket"):
        store_at("s3://")


def test_a_project_without_a_lock_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Lock the project"):
        build(tmp_path)
    with pytest.raises(ConfigurationError, match="x86_64, arm64"):
        build(tmp_path, machine="riscv")
    (tmp_path / "requirements.txt").write_text("surely-no-such-distribution-of-flujo==9\n")
    with pytest.raises(ConfigurationError, match="uv pip said"):
        build(tmp_path)


def test_hidden_files_and_virtual_environments_are_no_part_of_a_project(tmp_path: Path) -> None:
    """A `venv` beside the steps made an artifact of 100 MB, and a `.env` in a package went along, signed."""
    for name in ("steps.py", "pkg/__init__.py", "pkg/data.json", "env/lib/other.py", "pkg/env/lib/other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for name in ("env/pyvenv.cfg", "pkg/env/pyvenv.cfg", ".env", "pkg/.env", "requirements.txt"):
        (tmp_path / name).write_text("TOKEN=x\n" if name.endswith(".env") else "")
    files = build(tmp_path).packed.files
    assert [name for name in files if "__pycache__" not in name] == ["pkg/__init__.py", "pkg/data.json", "steps.py"]


@pytest.mark.parametrize("name", ["steps.py", "pkg/signing.pem", "pkg/account.json"])
def test_a_private_key_is_no_part_of_an_artifact(tmp_path: Path, name: str) -> None:
    """A signing key that lay in a package of the project went along, signed with itself."""
    for path in ("requirements.txt", "steps.py", "pkg/__init__.py", "tests/key.pem"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("MARK = '-----BEGIN PRIVATE KEY-----'\n" if path == "pkg/__init__.py" else "")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    (tmp_path / "tests/key.pem").write_text(pem)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pkg" / "worker.pem").write_bytes(public)
    assert "pkg/worker.pem" in build(tmp_path).packed.files
    written = {".py": f"KEY = {pem!r}", ".pem": pem, ".json": json.dumps({"private_key": pem})}
    (tmp_path / name).write_text(written[Path(name).suffix])
    with pytest.raises(ConfigurationError, match=f"{name} holds a private key.*Move it out") as told:
        build(tmp_path)
    assert pem.splitlines()[1] not in str(told.value)
