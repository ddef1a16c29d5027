"""The plugins of one Flujo, or of the command line: which act, and what all allowed ones register."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

from .allowed import AllowList, allow_list, canonical, from_environment, narrowed
from .errors import PluginError
from .foreign import attempt, text_of
from .hooks import Hooks
from .loader import Installed, discover, instance, load
from .plugins import resolve
from .policy import Policy
from .protocols import Command, PriceBook, RunStore, StoreFactory
from .resources import ResourceSpec
from .usage import Price

T = TypeVar("T")


class Plugins:
    """Plugins of one engine. Nothing is imported until it is named, or a registry is asked for.

    Args:
        use: Distribution names, or plugin objects, that act.
        allowed: Distributions that may be imported, as `flujo-audit` or `flujo-audit>=1,<2`; None asks `FLUJO_PLUGINS`,
            which allows all when unset.
        settings: Keyword arguments for each distribution's `Plugin`, by distribution name.
        policy: What it does not allow is not imported either.

    Attributes:
        allowed: Distributions that may be imported, by name with the versions; None is all.
        acting: Name and object of each that acts.
        named: What those were made with that were named, not given as objects.

    Raises:
        PluginError: A named one is missing, blocked or broken.
        ConfigurationError: `allowed`, or `FLUJO_PLUGINS`, cannot be read.
    """

    def __init__(
        self,
        use: Iterable[object] = (),
        *,
        allowed: Iterable[str] | None = None,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        policy: Policy | None = None,
    ) -> None:
        given = from_environment() if allowed is None else allow_list(allowed)
        self.allowed: AllowList | None = narrowed(given, None if policy is None else policy.plugins)
        self._installed: list[Installed] | None = None
        self._prices: dict[str, Price | None] = {}
        self._books: list[PriceBook] | None = None
        self.acting: list[tuple[str, object]] = []
        self._settings = settings or {}
        self.named: dict[str, Mapping[str, object]] = {}
        for item in [use] if isinstance(use, str) else use:
            self.acting += self._named(item) if isinstance(item, str) else [(self._name_of(item), item)]

    def hold_to(self, policy: Policy) -> None:
        """Let a policy hold: what it requires acts, too; what it does not allow is not imported from here on.

        Raises:
            PluginError: One that it requires is missing, blocked or broken, or one acts that it does not allow.
        """
        if policy.plugins is not None:
            self.allowed = narrowed(self.allowed, policy.plugins)
            self._installed, self._books, self._prices = None, None, {}
        for name in sorted(policy.require):
            self.acting += self._named(name, "the policy requires it, and ")
        for plugin in self.installed if self.acting and self.allowed is not None else ():
            if plugin.state == "blocked" and plugin.distribution in dict(self.acting):
                instance(plugin, {})  # says why it cannot be used

    def hooks(
        self,
        policy: Policy,
        observers: Iterable[Callable[..., object]] = (),
        specs: Mapping[str, ResourceSpec] | None = None,
    ) -> Hooks:
        """Hooks of what acts, and of plain observers, in the order in which they are called.

        Args:
            policy: What it requires must do its work.
            observers: Plain callables, chosen by the annotation of their first parameter.
            specs: Resources that hooks may take.

        Raises:
            PluginError: One has a hook that cannot be called.
        """
        return Hooks(policy, resolve(self.acting, observers, policy.require, specs or {}))

    def _named(self, name: str, demand: str = "") -> list[tuple[str, object]]:
        """What acts for a distribution, unless it acts already."""
        name = canonical(name)
        found = [plugin for plugin in self.installed if plugin.distribution == name]
        if not found:
            why = f"{demand}no installed distribution of that name offers a plugin"
            raise PluginError(f"plugin {name!r} is missing", why, f"Install it: pip install {name}")
        if name in dict(self.acting):
            return []
        self.named[name] = self._settings.get(name, {})
        return [(name, instance(load(plugin), self.named[name])) for plugin in found]

    @property
    def installed(self) -> list[Installed]:
        """All plugins found in the environment, blocked ones too."""
        if self._installed is None:
            self._installed = discover(self.allowed)
        return self._installed

    def _name_of(self, plugin: object) -> str:
        """The distribution that a plugin object comes from; its class's name where none brings it."""
        cls = plugin if inspect.isclass(plugin) or inspect.ismodule(plugin) else type(plugin)
        module = str(getattr(cls, "__module__", cls.__name__))
        for found in self.installed:
            package = found.target.rpartition(".")[0]
            if getattr(sys.modules.get(package), "__file__", None) is None:  # a namespace, which others share
                package = found.target
            if f"{module}.".startswith(f"{package}."):
                return found.distribution
        return str(cls.__name__)

    def load(self) -> list[Installed]:
        """Import every allowed plugin and return all that are installed; one that fails says why in `error`."""
        return [load(plugin) for plugin in self.installed]

    def registered(self, hook: str, kind: type[T]) -> list[tuple[str, T]]:
        """What all allowed plugins return from a `register_*` hook, with the plugin's name.

        Raises:
            PluginError: One failed to load, or registered something else.
        """
        found: list[tuple[str, T]] = []
        sources = [(plugin.distribution, plugin.module) for plugin in self.load()]
        for name, source in [*self.acting, *sources]:  # what somebody named comes before what is only there
            function = getattr(source, hook, None) if source is not None else None
            if function is None or not hasattr(function, "flujo_impl"):
                continue
            found += [(name, item) for item in _given(name, hook, function, kind)]
        return list({id(item): (name, item) for name, item in found}.values())

    def commands(self) -> list[tuple[str, Command]]:
        """Sub-commands of the command line."""
        return self.registered("register_commands", Command)

    def store_of(self, url: str) -> RunStore:
        """The store that a URL names, e.g. `sqlite:///runs.db`.

        Raises:
            PluginError: No installed and allowed plugin knows such stores.
        """
        scheme, known = url.partition(":")[0], dict[str, StoreFactory]()
        for _, factory in self.registered("register_stores", StoreFactory):
            known.setdefault(factory.scheme, factory)
        if scheme not in known:
            why = f"no plugin knows stores of {scheme!r}; there are: {', '.join(sorted(known)) or 'none'}"
            raise PluginError("the store cannot be opened", why, "Install one that does: pip install flujo-hitl")
        return known[scheme].open(url)

    def price_of(self, model: str) -> Price | None:
        """What a model costs, by the first price book that knows."""
        if model not in self._prices:
            if self._books is None:
                self._books = [cast("PriceBook", book) for _, book in self.registered("register_price_books", object)]
            found = (book.price(model) for book in self._books)
            self._prices[model] = next((price for price in found if price is not None), None)
        return self._prices[model]


def _given(name: str, hook: str, function: Callable[[], Iterable[T]], kind: type[T]) -> list[T]:
    """What a plugin registers, all of one kind."""
    items, error = attempt(lambda: list(function()))
    wrong = next((type(item).__name__ for item in items or () if not isinstance(item, kind)), "")
    if error is not None or wrong:
        why = f"{type(error).__name__}: {text_of(error)}" if error else f"it returned {wrong}, not {kind.__name__}"
        raise PluginError(f"{hook} of plugin {name!r} failed", why) from error
    return items or []
