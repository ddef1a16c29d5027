"""Artifacts: the same bytes for the same content, nothing overwritten, nothing deployed that nobody signed."""

from __future__ import annotations

import base64
import dataclasses
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
from flujo.backend_lambda.registry import origin, store_at
from flujo.backend_lambda.sbom import Asked, components_in, signed, verified
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
    told = json.loads(base64.b64decode(json.loads(store.statement("pkg", "1"))["payload"]))
    assert told["subject"] == [{"name": "pkg-1.zip", "digest": {"sha256": digest}}]
    for asked in (Asked("pkg", "1"), Asked(digest=digest), Asked("pkg", "1", digest)):
        made = origin(store, asked, {signer.keyid: signer.verifier})
        assert made == artifact.origin
    assert (made.name, made.version, made.python, made.machine) == ("pkg", "1", "3.12", "x86_64")
    assert json.loads(artifact.manifest)["machine"] == "x86_64"
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
            verified(data, keys, Asked(digest=about))
    with pytest.raises(ConfigurationError, match="no signed envelope"):
        verified(b"{}", {}, Asked(digest=digest))
    foreign = signed(b'{"subject": [{"digest": {"sha256": "0"}}]}', signer)  # of another tool, by the same key
    with pytest.raises(ConfigurationError, match="does not say name, version, Python and machine"):
        verified(foreign, {signer.keyid: signer.verifier}, Asked(digest=digest))


def test_a_version_is_never_another_artifact(store: ArtifactStore, artifact: Artifact, tmp_path: Path) -> None:
    publish(store, artifact, Ed25519Signer.generate())
    other = store.put(b"other")
    with pytest.raises(ConfigurationError, match="Take another version"):
        store.name("pkg", "1", other, b"{}")
    assert store.resolve("pkg", "1") == artifact.digest
    late = numbered(tmp_path, "pkg", "1", "late")
    with pytest.raises(ConfigurationError, match="Take another version"):
        publish(store, late, Ed25519Signer.generate())
    with pytest.raises(ConfigurationError, match="has no statement"):  # it would be a signed claim to that version
        store.attached(late.digest, "statement")


def numbered(folder: Path, name: str, version: str, text: str) -> Artifact:
    (folder / text).mkdir(exist_ok=True)
    (folder / text / "words.py").write_text(text)
    return Artifact(name, version, "3.12", pack(folder / text), ())


def test_who_writes_the_index_can_give_a_version_no_other_content(tmp_path: Path) -> None:
    """Each artifact was signed, and no statement said what it is called: version 2 could be made version 1 again."""
    store, signer, index = FileArtifactStore(tmp_path), Ed25519Signer.generate(), tmp_path / "index"
    trusted = {signer.keyid: signer.verifier}
    for name, version, text in (("p", "1", "old"), ("p", "2", "new"), ("q", "1", "other")):
        publish(store, numbered(tmp_path, name, version, text), signer)
    assert origin(store, Asked("p", "2"), trusted).digest == store.resolve("p", "2")
    for before in ("p/1.json", "q/1.json"):
        entry = json.loads((index / before).read_text())
        (index / "p" / "2.json").write_text(json.dumps(entry))
        with pytest.raises(ConfigurationError, match="p 2 cannot be used: its statement speaks of another artifact"):
            origin(store, Asked("p", "2"), trusted)
        (index / "p" / "2.json").write_text(json.dumps({"sha256": entry["sha256"]}))
        with pytest.raises(ConfigurationError, match=r"index/p/2\.json of the store is damaged"):
            origin(store, Asked("p", "2"), trusted)
    with pytest.raises(ConfigurationError, match=r"p artifact .* cannot be used: its statement speaks of another"):
        origin(store, Asked("p", digest=store.resolve("q", "1")), trusted)
    with pytest.raises(ConfigurationError, match="Say which: --name and --version, or --digest"):
        origin(store, Asked("p"), trusted)


@pytest.mark.parametrize("entry", [b"{", b"[]", b"{}", b'{"sha256": "x", "statement": {}}', b"\xff"])
def test_a_damaged_index_is_named(tmp_path: Path, artifact: Artifact, entry: bytes) -> None:
    store = FileArtifactStore(tmp_path / "store")
    publish(store, artifact, Ed25519Signer.generate())
    (tmp_path / "store" / "index" / "pkg" / "1.json").write_bytes(entry)
    with pytest.raises(ConfigurationError, match=r"pkg 1 cannot be used: index/pkg/1\.json of the store is damaged"):
        store.resolve("pkg", "1")


def test_the_same_content_has_a_statement_for_each_of_its_versions(store: ArtifactStore, tmp_path: Path) -> None:
    """They have one digest, and the first statement stood for all: that of the second key, machine or name was lost."""
    first, second = Ed25519Signer.generate(), Ed25519Signer.generate()
    one, two = numbered(tmp_path, "p", "1", "same"), numbered(tmp_path, "p", "2", "same")
    two = dataclasses.replace(two, machine="arm64")
    assert publish(store, one, first) == publish(store, two, second)
    assert origin(store, Asked("p", "1"), {first.keyid: first.verifier}) == one.origin
    assert origin(store, Asked("p", "2"), {second.keyid: second.verifier}) == two.origin
    assert publish(store, one, second) == one.digest  # nothing is overwritten: it stays what the first one signed
    with pytest.raises(ConfigurationError, match="no key that is trusted"):
        origin(store, Asked("p", "1"), {second.keyid: second.verifier})


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
    assert isinstance(store_at(f"file://{tmp_path}"), FileArtifactStore)
    for url in ("ftp://x", "https://bucket.s3.amazonaws.com", "s3:/bucket"):  # each was taken for a folder
        with pytest.raises(ConfigurationError, match=r"is no store.*Write s3://BUCKET/PREFIX"):
            store_at(url)


def test_a_bucket_that_is_not_there_is_named(s3: Any) -> None:
    store = S3ArtifactStore("nowhere", client=s3)
    for ask in (lambda: store.get("0" * 64), lambda: store.put(b"one")):
        with pytest.raises(ConfigurationError, match=r"bucket 'nowhere' cannot be used.*Make it"):
            ask()


def test_a_project_without_a_lock_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Lock the project"):
        build(tmp_path)
    with pytest.raises(ConfigurationError, match="x86_64, arm64"):
        build(tmp_path, machine="riscv")
    (tmp_path / "requirements.txt").write_text("surely-no-such-distribution-of-flujo==9\n")
    with pytest.raises(ConfigurationError, match="uv pip said"):
        build(tmp_path)


@pytest.mark.parametrize("called", [{"name": "../../evil"}, {"name": "a b"}, {"version": "1/2"}, {"version": ""}])
def test_an_artifact_has_a_name_that_files_can_have(tmp_path: Path, called: dict[str, str]) -> None:
    """A name with `..` was written outside of the folder for it."""
    (tmp_path / "requirements.txt").write_text("surely-no-such-distribution-of-flujo==9\n")  # it is not asked for
    with pytest.raises(ConfigurationError, match=r"cannot be a name or a version.*Take another one"):
        build(tmp_path, **called)
    with pytest.raises(ConfigurationError, match="cannot be a name or a version"):
        Artifact(**{"name": "x", "version": "1", **called}, python="3.12", packed=pack(fill(tmp_path)), components=())


def test_requirements_may_name_others_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were copied away from the files that they name."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "requirements.txt").write_text("-r base.txt\n")
    (tmp_path / "project" / "base.txt").write_text("-r ../more.txt\n")
    (tmp_path / "project" / "words.py").write_text("")
    (tmp_path / "more.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    assert "words.py" in build(Path("project")).packed.files
    assert "words.py" in build(Path("project"), requirements=Path("project/base.txt")).packed.files


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
