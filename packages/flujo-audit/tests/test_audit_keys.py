"""Keys and digests: acceptance check 19, and key files that several processes may create at once."""

import hashlib
import hmac
import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest
from pydantic import BaseModel, SecretStr, computed_field

from flujo.audit.digest import Digester
from flujo.audit.keys import checkpoint_key, own_key, read_key, text_key
from flujo.core import ConfigurationError, Message

KEY = b"a key of more than sixteen bytes"


def test_check_19_without_the_key_no_dictionary_finds_a_prompt():
    prompt = "Has John Smith got diabetes?"
    digest = Digester(KEY).text(prompt)
    assert digest == Digester(KEY).text(prompt) == Digester(KEY).value(prompt)
    assert digest["length"] == len(prompt)
    assert digest["hmac"] != Digester(KEY + b"!").text(prompt)["hmac"]
    guesses = [prompt, prompt.lower(), f"{prompt}\n", json.dumps(prompt)]
    bare = {hashlib.new(name, guess.encode()).hexdigest() for guess in guesses for name in ("sha256", "sha1", "md5")}
    empty = {hmac.new(key, guess.encode(), "sha256").hexdigest() for guess in guesses for key in (b"", b"\x00", b"key")}
    assert digest["hmac"] not in bare | empty


def test_a_digest_is_what_the_readme_says_so_that_others_can_compute_it():
    subkey = hmac.new(KEY, b"flujo-audit text 1", "sha256").digest()
    expected = hmac.new(subkey, "über".encode(), "sha256").hexdigest()
    assert Digester(KEY).text("über") == {"hmac": expected, "length": 4}
    assert text_key(KEY) != checkpoint_key(KEY) != KEY


class Patient(BaseModel):
    name: str
    age: int


def test_values_are_digested_by_their_content_not_by_their_order_or_class():
    digest = Digester(KEY)
    assert digest.value({"age": 3, "name": "A"}) == digest.value({"name": "A", "age": 3})
    assert digest.value(Patient(name="A", age=3)) == digest.value({"name": "A", "age": 3})
    assert digest.value((Message(role="user", content="A"),)) != digest.value((Message(role="user", content="B"),))
    assert digest.value(Decimal("1.0")) != digest.value(Decimal("1.1"))
    assert digest.value(b"\xff\xfe") == {"hmac": digest.value(b"\xff\xfe")["hmac"], "length": 2}
    assert digest.value("\ud800")["length"] == 1
    assert digest.value(float("nan")) == digest.value(float("nan"))
    assert digest.value(object()) == digest.value(object())


def test_a_secret_is_not_even_digested():
    assert Digester(KEY).value(SecretStr("one")) == Digester(KEY).value(SecretStr("two"))


class Moody(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def mood(self) -> str:
        raise KeyError("John Smith")


def test_a_value_that_cannot_be_turned_into_json_is_named_by_its_type():
    endless: list[object] = []
    endless.append(endless)
    assert Digester(KEY).value(endless) == {"undigested": "list"}
    assert Digester(KEY).value(Moody()) == {"undigested": "Moody"}


def test_digesting_takes_nothing_from_a_generator():
    numbers = iter(range(3))
    Digester(KEY).values({"numbers": numbers, "nested": [numbers, {"deep": numbers}]})
    assert list(numbers) == [0, 1, 2]


def test_a_set_has_one_digest_in_every_process():
    code = (
        "from flujo.audit.digest import Digester; "
        "print(Digester(b'0' * 16).value({'names': {'a', 'b', 'c', 'd', 'e'}})['hmac'])"
    )
    digests = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        digests.add(subprocess.check_output(command, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=240))
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["openai:gpt-4o", "search_web", "ValueError", "US_SSN", "stop", ""])
def test_technical_names_stay_readable(name):
    assert Digester(KEY).name(name) == name


@pytest.mark.parametrize(
    "content", ["John Smith", "123-45-6789", "jane@example.com", "Zoë", "sk-abcdefghijklmnopqrstuvwxyz", "x" * 129]
)
def test_what_does_not_look_like_a_name_becomes_a_digest(content):
    assert Digester(KEY).name(content) == Digester(KEY).text(content)
    assert content not in Digester(KEY).label(content)


def test_a_key_file_is_made_once_private_and_whole(tmp_path):
    path = tmp_path / "deeper" / "log.key"
    key = own_key(path)
    assert own_key(path) == key == path.read_bytes().strip()
    assert len(key) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_processes_that_start_together_agree_on_one_key(tmp_path):
    path = tmp_path / "log.key"
    code = (
        "import sys, pathlib; from flujo.audit.keys import own_key; print(own_key(pathlib.Path(sys.argv[1])).decode())"
    )
    command = [sys.executable, "-c", code, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert {process.communicate(timeout=240)[0].strip() for process in processes} == {path.read_text().strip()}
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_may_be_bytes_text_or_a_file(tmp_path):
    (tmp_path / "key").write_bytes(KEY + b"\n")
    assert read_key(KEY) == read_key(KEY.decode()) == read_key(tmp_path / "key") == KEY


def test_a_key_that_cannot_be_used_is_refused_without_showing_it(tmp_path):
    (tmp_path / "empty").touch()
    for key in (b"short", "short", tmp_path / "empty", tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigurationError) as caught:
            read_key(key)
        assert "short" not in str(caught.value).replace("shorter", "")
