"""`flujo hitl`: the inbox in a browser, and who may use it. Imported only when called; needs `[cli]` and `[web]`."""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import anyio
import click

from flujo.core import ConfigurationError

from .cli_worker import INTERRUPTED, Teller, until_signal
from .printing import AS_JSON, EXPERIMENTAL, STORE, check_kept, host_of, line, listing, prepared
from .worker import Worker

if TYPE_CHECKING:
    from flujo.core import Plan

    from .protocol import HitlStore
    from .web.people import Users
    from .web.serving import Serving
    from .web.settings import WebSettings

__all__ = ["hitl"]

KEY_VARIABLE = "FLUJO_WEB_KEY"
"""Signs sessions; without it a new start signs everybody out."""
OIDC_VARIABLE = "FLUJO_OIDC_SECRET"
"""The secret of this app at the provider."""
HOOK_VARIABLE = "FLUJO_WEBHOOK_SECRET"
"""Signs what is sent to webhooks."""

_USERS = click.option(
    "--users", "users_file", metavar="FILE", default="hitl-users.json", show_default=True,
    type=click.Path(path_type=Path, dir_okay=False), help="The file with people, hashed passwords and roles.",
)  # fmt: skip


class ServeFlags(TypedDict):
    """The options of `flujo hitl serve`, as click gives them."""

    url: str | None
    host: str
    port: int
    public_url: str | None
    users_file: Path
    user_header: str | None
    roles_header: str | None
    proxy: tuple[str, ...]
    oidc_issuer: str | None
    oidc_client: str | None
    oidc_roles: str
    oidc_tenant: str | None
    webhook: tuple[str, ...]
    webhook_private: bool
    poll_s: float
    concurrency: int
    as_json: bool


class Facts(TypedDict):
    """What is known of a user, as click gives it."""

    roles: tuple[str, ...]
    tenant: str | None


@click.group()
def hitl() -> None:
    """Answer what runs ask in a browser, or by a JSON API.

    \b
      pip install 'flujo-hitl[cli,web]'
      export FLUJO_STORE=sqlite:///runs.db
      flujo hitl user add ann --role finance
      flujo hitl serve flows.py
    """
    _need(("fastapi", "pwdlib", "uvicorn"), "web")


@hitl.command()
@click.argument("target", metavar="[FILE[:NAME]]", required=False)
@STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8321, show_default=True, type=click.IntRange(1, 65535), help="The port.")
@click.option("--url", "public_url", metavar="URL", help="Where people reach it: https://approvals.example.org.")
@_USERS
@click.option("--user-header", metavar="NAME", help="A header in which --proxy says who it is.")
@click.option("--roles-header", metavar="NAME", help="A header in which it says their roles, separated by commas.")
@click.option("--proxy", metavar="ADDRESS", multiple=True, help="An address or network from which it is believed.")
@click.option("--oidc-issuer", metavar="URL", help="An OpenID Connect provider; needs the extra [oidc].")
@click.option("--oidc-client", metavar="ID", help=f"How it knows this app; the secret is in {OIDC_VARIABLE}.")
@click.option("--oidc-roles", metavar="CLAIM", default="groups", show_default=True, help="The claim that lists roles.")
@click.option("--oidc-tenant", metavar="CLAIM", help="The claim that names the tenant; else that of --users.")
@click.option("--webhook", metavar="URL", multiple=True,
              help=f"Is told of each new question, signed with {HOOK_VARIABLE}; may be repeated.")  # fmt: skip
@click.option("--webhook-private", is_flag=True, help="Let webhooks be at private addresses.")
@click.option("--poll", "poll_s", metavar="SECONDS", type=click.FloatRange(0.05, 3600), default=1.0, show_default=True,
              help="How often the worker looks.")  # fmt: skip
@click.option("--concurrency", metavar="N", type=click.IntRange(1, 1000), default=4, show_default=True,
              help="Most runs at once.")  # fmt: skip
@EXPERIMENTAL
@AS_JSON
@click.pass_context
def serve(ctx: click.Context, /, target: str | None, **flags: Unpack[ServeFlags]) -> None:
    """Serve the inbox; with FILE also go on with the runs of its pipeline, as `flujo runs worker` does.

    Without FILE decisions are recorded only, and workers elsewhere go on with the runs.

    \b
      flujo hitl serve flows.py                       # for yourself: http://127.0.0.1:8321
      flujo hitl serve --url https://approvals.example.org --user-header X-Forwarded-User --proxy 10.0.0.5

    It speaks plain HTTP: for others than yourself put a proxy with TLS before it, and give its --url. The first SIGTERM
    or Ctrl-C ends it when what runs has ended, the second at once.
    """
    settings = _settings(flags)
    teller = Teller(as_json=flags["as_json"])
    worker = None
    if target is not None:
        flujo = prepared(ctx, target, flags["url"], may_be_new=True)
        worker = Worker(flujo, teller, concurrency=flags["concurrency"])
        store = worker.store
    else:
        store = listing(host_of(ctx).store(flags["url"]))
        check_kept(store, may_be_new=True)
    serving = _Web.serving(store, settings, None if worker is None else worker.flujo.plan, flags)

    click.echo(f"The inbox is at {settings.url}", err=True)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(until_signal, serving.end, teller)
            async with anyio.create_task_group() as both:
                if worker is not None:
                    both.start_soon(lambda: worker.work(poll_s=flags["poll_s"]))
                await serving.run()
                if worker is not None:
                    worker.end()
            group.cancel_scope.cancel()

    anyio.run(work)
    ctx.exit(INTERRUPTED if teller.is_interrupted else 0)


@hitl.group()
def user() -> None:
    """Who may sign in at the inbox, and by which roles they may answer.

    The role `operator` sees every run and may end one. Without roles one answers what is for anybody.
    """


@user.command()
@click.argument("name")
@click.option("--role", "roles", metavar="NAME", multiple=True, help="What they may answer; may be repeated.")
@click.option("--tenant", metavar="NAME", help="The only tenant whose runs they see.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of stdin.")
@_USERS
@AS_JSON
def add(name: str, *, password_stdin: bool, users_file: Path, as_json: bool, **facts: Unpack[Facts]) -> None:
    """Add NAME, or give them another password, roles and tenant; asks for the password.

    \b
      flujo hitl user add ann --role finance --role board
      flujo hitl user add ops --role operator
    """
    if password_stdin:
        password = sys.stdin.readline().rstrip("\n")
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        raise click.UsageError("There is no terminal to ask for the password on; give --password-stdin.")
    _Web.users(users_file).add(name, password, facts["roles"], facts["tenant"])
    click.echo(json.dumps({"name": name, **facts}) if as_json else f"{line(name)} may sign in.")


@user.command()
@click.argument("name")
@_USERS
@AS_JSON
def remove(name: str, users_file: Path, as_json: bool) -> None:
    """Remove NAME, with all tokens: at once, also where they are signed in."""
    _Web.users(users_file).remove(name)
    click.echo(json.dumps({"removed": name}) if as_json else f"{line(name)} may not sign in any more.")


@user.command("list")
@_USERS
@AS_JSON
def list_users(users_file: Path, as_json: bool) -> None:
    """Print who may sign in: name, roles, tenant."""
    for one in _Web.users(users_file).all():
        facts = {"name": one.name, "roles": sorted(one.roles), "tenant": one.tenant}
        click.echo(json.dumps(facts) if as_json else line(one.name, ",".join(sorted(one.roles)) or None, one.tenant))


@user.command()
@click.argument("name")
@click.option("--drop", is_flag=True, help="Make all their tokens void instead.")
@_USERS
@AS_JSON
def token(name: str, *, drop: bool, users_file: Path, as_json: bool) -> None:
    """Print a new token by which a program acts for NAME at the JSON API. It is shown once; keep it secret.

    \b
      curl -H "Authorization: Bearer $TOKEN" https://approvals.example.org/api/inbox
    """
    users = _Web.users(users_file)
    if drop:
        number = users.drop_tokens(name)
        click.echo(json.dumps({"dropped": number}) if as_json else f"{number} tokens are void.")
    else:
        made = users.new_token(name)
        click.echo(json.dumps({"token": made}) if as_json else made)


# --- pieces -----------------------------------------------------------------------------------------------------------


class _Web:
    """The web app, which takes 0.5 s to import and is an extra."""

    @staticmethod
    def users(path: Path) -> Users:
        """The people of a file."""
        from .web.people import Users  # an extra

        return Users(path)

    @staticmethod
    def serving(store: HitlStore, settings: WebSettings, plan: Plan | None, flags: ServeFlags) -> Serving:
        """The server, ready to run."""
        from .web.app import create_app  # an extra
        from .web.serving import Serving  # an extra
        from .web.webhooks import Webhooks  # an extra

        secret = os.environ.get(HOOK_VARIABLE, "")
        hooks = [
            Webhooks(store, url, secret, settings.url, allow_private=flags["webhook_private"])
            for url in flags["webhook"]
        ]
        return Serving(create_app(store, settings, plan=plan), flags["host"], flags["port"], hooks)


def _need(modules: Sequence[str], extra: str) -> None:
    """Refuse to go on where an extra is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        do = f"Install it: pip install 'flujo-hitl[cli,{extra}]'"
        raise ConfigurationError("the inbox cannot be used", f"{missing[0]!r} is not installed", do)


def _settings(flags: ServeFlags) -> WebSettings:
    from .web.settings import Oidc, TrustedHeader, WebSettings  # an extra

    users = _Web.users(flags["users_file"])
    header, oidc = None, None
    if flags["user_header"] is not None:
        header = TrustedHeader(flags["user_header"], _networks(flags["proxy"]), flags["roles_header"])
    if flags["oidc_issuer"] is not None:
        _need(("authlib",), "oidc")
        secret = os.environ.get(OIDC_VARIABLE, "")
        if not secret or not flags["oidc_client"]:
            why = f"--oidc-client or {OIDC_VARIABLE} is missing"
            raise ConfigurationError("the provider cannot be used", why, "Give both")
        claims = {"roles_claim": flags["oidc_roles"], "tenant_claim": flags["oidc_tenant"]}
        oidc = Oidc(flags["oidc_issuer"], flags["oidc_client"], secret, **claims)  # type: ignore[arg-type]
    if header is None and oidc is None and not users.all():
        do = f"Add one: flujo hitl user add NAME --role ROLE --users {flags['users_file']}"
        raise ConfigurationError("nobody could sign in", f"{str(flags['users_file'])!r} names no user", do)
    key = os.environ.get(KEY_VARIABLE) or secrets.token_urlsafe(32)
    host = f"[{flags['host']}]" if ":" in flags["host"] else flags["host"]
    url = flags["public_url"] or f"http://{host}:{flags['port']}"
    return WebSettings(url=url, users=users, header=header, oidc=oidc, key=key)


def _networks(addresses: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    try:
        return [ipaddress.ip_network(one) for one in addresses]
    except ValueError as error:
        raise click.BadParameter(f"{error}; write 10.0.0.5 or 10.0.0.0/24") from error
