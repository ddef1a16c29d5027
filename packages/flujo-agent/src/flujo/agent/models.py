"""Models by name: what can be checked without loading anything, and the model itself once it is needed."""

from __future__ import annotations

import inspect
import re
import sys
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.core import Price

from .cassette import replaying

if TYPE_CHECKING:
    from pydantic_ai.models import Model

LOCAL = "local"

_NO_KEY = "replayed"
"""Stands for the key of a model that is not asked, because a cassette answers."""

_EXTRAS = {
    "openai": ("openai", "openai"),
    "anthropic": ("anthropic", "anthropic"),
    "google": ("google", "google.genai"),
    "google-gla": ("google", "google.genai"),
    "google-vertex": ("google", "google.genai"),
    LOCAL: ("local", "xllamacpp"),
}
"""Providers for which this distribution has an extra, and the module that it brings."""

_EXTRA = re.compile(r"""(?P<client>[\w.-]+)[^;]*;\s*extra\s*==\s*['"](?P<extra>[\w-]+)['"]\s*$""")
"""A requirement of an extra that holds everywhere, as a distribution's metadata has it."""


def problem_with(model: object, base_url: str | None) -> str | None:
    """What is wrong with a model as the user named it, as far as can be told without importing pydantic-ai."""
    if model is None:
        return "its model is missing; name one: 'openai:NAME', 'local:FILE.gguf' or 'PROVIDER:NAME'"
    if not isinstance(model, str):
        return None if is_model(model) else f"model {model!r} is neither a name nor a model of pydantic-ai"
    provider, colon, name = model.partition(":")
    if not (provider and colon and name):
        return f"model {model!r} is no name; write 'openai:NAME', 'local:FILE.gguf' or 'PROVIDER:NAME'"
    if base_url is not None and provider != "openai":
        return f"base_url= is for servers that speak OpenAI's protocol; write 'openai:{name}', not {model!r}"
    if provider == LOCAL and not Path(name).expanduser().is_file():
        return f"model {model!r}: there is no file {name!r}"
    missing = _missing(provider)
    return None if missing is None else f"model {model!r}: {missing}"


def _missing(provider: str) -> str | None:
    """What there is not for the models of a provider: itself, or its client."""
    if provider in _EXTRAS:
        extra, module = _EXTRAS[provider]
        return None if _installed(module) else f"it needs {module!r}; pip install 'flujo-agent[{extra}]'"
    known = _providers()
    if not any(provider == one or provider.startswith((f"{one}-", f"{one}/")) for one in known):
        near = get_close_matches(provider, known, 1)
        return f"there is no provider {provider!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    client = _clients().get(provider)
    if client is None or _is_there(client):
        return None
    return f"it needs {client!r}; pip install 'pydantic-ai-slim[{provider}]'"


@cache
def _providers() -> tuple[str, ...]:
    """The providers of the pydantic-ai that is installed, by their files: to import them takes over a second."""
    spec = find_spec("pydantic_ai")
    assert spec is not None
    assert spec.origin is not None
    files = Path(spec.origin).with_name("providers").glob("[a-z]*.py")
    return tuple(sorted(file.stem.replace("_", "-") for file in files))


@cache
def _clients() -> dict[str, str]:
    """The distribution of each provider's client, as pydantic-ai's extras name them."""
    found = (_EXTRA.match(line) for line in requires("pydantic-ai-slim") or ())
    return {match["extra"]: match["client"] for match in reversed([*found]) if match is not None}


def _is_there(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def is_model(model: object) -> bool:
    """Whether it is a model object; only who has loaded pydantic-ai can have one."""
    loaded = sys.modules.get("pydantic_ai.models")
    cls: object = getattr(loaded, "Model", None)
    return inspect.isclass(cls) and isinstance(model, cls)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def short_name(model: object) -> str:
    """A name for a step that asks this model."""
    name = model if isinstance(model, str) else str(getattr(model, "model_name", "agent"))
    provider, _, rest = name.partition(":")
    name = Path(rest).stem if provider == LOCAL else rest or name
    return name.replace("/", "_") or "agent"


def known_price(model: str | Model) -> Price | None:
    """The price that goes without saying: a model in this process is free."""
    return Price() if isinstance(model, str) and model.startswith(f"{LOCAL}:") else None


def make(model: str | Model, base_url: str | None = None, api_key: str | None = None) -> Model:
    """The model itself. Blocks while pydantic-ai is imported and a local model is loaded, so call it in a thread.

    A client that is made here makes no retries: the run makes them.
    """
    if not isinstance(model, str):
        return model
    made = _made(model, base_url, api_key)
    client: Any = getattr(made, "client", None)
    if hasattr(client, "max_retries"):
        client.max_retries = 0
    return made


def _made(model: str, base_url: str | None, api_key: str | None) -> Model:
    from pydantic_ai.models import infer_model  # here: takes over a second to import

    provider, _, name = model.partition(":")
    if replaying():
        return _not_asked(model, base_url)
    if provider == LOCAL:
        from .local import serve  # here: only with the extra [local]

        path = Path(name).expanduser()
        served = serve(path)
        return _compatible(LOCAL, path.name, served.base_url, served.api_key)
    if base_url is not None:
        return _compatible("compatible", name, base_url, api_key)
    if api_key is not None:
        from pydantic_ai.providers import infer_provider_class  # here: as above

        return infer_model(model, lambda found: infer_provider_class(found)(api_key=api_key))  # type: ignore[call-arg]
    return infer_model(model)


def _not_asked(model: str, base_url: str | None) -> Model:
    """The model as far as its name and profile go: a cassette answers for it, so it needs no key and is not loaded."""
    from pydantic_ai.models import infer_model  # here: as above
    from pydantic_ai.providers import Provider, infer_provider_class

    provider, _, name = model.partition(":")
    if provider == LOCAL:
        return _compatible(LOCAL, Path(name).name, "http://localhost", _NO_KEY)
    if base_url is not None:
        return _compatible("compatible", name, base_url, _NO_KEY)

    def keyless(found: str) -> Provider[object]:
        cls = infer_provider_class(found)
        takes_key = "api_key" in inspect.signature(cls).parameters
        return cls(api_key=_NO_KEY) if takes_key else cls()  # type: ignore[call-arg]

    return infer_model(model, keyless)


def _compatible(provider: str, name: str, base_url: str, api_key: str | None) -> Model:
    """A model behind any server that speaks OpenAI's protocol.

    Its provider is not called `openai`: what such a server charges is not what OpenAI's price list says.
    """
    from pydantic_ai.models.openai import OpenAIChatModel  # here: as above
    from pydantic_ai.profiles import ModelProfile
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    profile = ModelProfile(supports_json_schema_output=True)
    made = OpenAICompatibleProvider(provider, base_url=base_url, api_key=api_key, profile=profile)
    return OpenAIChatModel(name, provider=made)
