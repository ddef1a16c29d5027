"""What the environment says of stores that are opened by URL: the keys of their tokens, and their codec."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import sys
from pathlib import Path

from flujo.core import ConfigurationError, FlujoError, PayloadCodec

from .tokens import KeyListSigner

__all__ = ["CODEC", "TOKEN_KEY", "codec", "signer"]

TOKEN_KEY = "FLUJO_TOKEN_KEY"
"""The keys of tokens, separated by commas or lines: the first signs, all check. `FLUJO_TOKEN_KEY_FILE` names a file."""
CODEC = "FLUJO_CODEC"
"""`module:object` of the PayloadCodec."""
LEAST = 32
"""Characters that a key must have."""


def signer() -> KeyListSigner | None:
    """What signs tokens; None where no key is given.

    Raises:
        ConfigurationError: A key cannot be used. It is not told.
    """
    source, text = _secret(TOKEN_KEY)
    if text is None:
        return None
    given = text.replace(",", "\n").split("\n")
    keys = [key for key in map(str.strip, given) if key] or [""]
    for number, key in enumerate(keys, 1):
        if len(key) < LEAST:
            which = "it" if len(keys) == 1 else f"key {number} of it"
            why, do = f"{which} has {len(key)} characters, fewer than {LEAST}", "Make one: openssl rand -hex 32"
            raise ConfigurationError(f"{source} cannot be used", why, do)
    return KeyListSigner("env", [hashlib.sha256(key.encode()).digest() for key in keys])


def codec() -> PayloadCodec | None:
    """What encrypts payloads; None where none is named. It is imported as the pipeline in a FILE is.

    Raises:
        ConfigurationError: There is none at that place.
    """
    path = os.environ.get(CODEC)
    if not path:
        return None
    what, do = f"{CODEC}={path!r} cannot be used", "Name a codec as module:object, e.g. payloads:codec"
    if not re.fullmatch(r"[\w.]+:[\w.]+", path):
        raise ConfigurationError(what, "it is no module:object", do)
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = pkgutil.resolve_name(path)
    except FlujoError:
        raise
    except Exception as error:  # whatever a module of the user's raises
        # the text of an error may hold a key that could not be read; a name that is missing is none
        is_name = isinstance(error, ImportError | AttributeError | KeyError)
        why = f"{type(error).__name__}: {error}" if is_name else f"its module raises {type(error).__name__}"
        raise ConfigurationError(what, why, do) from error
    if isinstance(found, type) or not all(callable(getattr(found, name, None)) for name in ("encode", "decode")):
        raise ConfigurationError(what, f"it is a {type(found).__name__}, and no PayloadCodec", do)
    made: PayloadCodec = found
    return made


def _secret(name: str) -> tuple[str, str | None]:
    """A secret of the environment, or of the file that it names, and which of them that is."""
    text, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if file is None:
        return name, text
    source = f"{name}_FILE={file!r}"
    if text is not None:
        raise ConfigurationError(f"{source} cannot be used", f"{name} is set too", "Set one of them")
    try:
        return source, Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(f"{source} cannot be used", why, "Name a file with one key on each line") from error
