"""From the address that a person wrote to the bytes: redirects by hand, each judged, the key shown to nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pydantic import SecretStr

from morpheus_worker.addresses import BadUrlError, MediaUrl
from morpheus_worker.settings import Settings
from morpheus_worker.sync.answers import REDIRECTS, Access, Answer
from morpheus_worker.sync.hosts.connecting import Connections, Exchange
from morpheus_worker.sync.refs import CIVITAI_HOSTS, HF_HOSTS
from morpheus_worker.sync.terms import SyncCode, SyncError

MAX_REDIRECTS: Final = 10

_SENDABLE: Final = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Key:
    """A credential, and the one origin that it is for. `variable` is where it stands, or would."""

    variable: str | None
    value: SecretStr | None
    origin: str
    grants: str | None = None
    """Completes a hint: where a key, or the right to the file, is to be had."""

    def headers_for(self, url: MediaUrl) -> dict[str, str]:
        """What shows the key to that address: nothing, to any other origin and over plain http."""
        if self.value is None or url.origin != self.origin or not is_private_way(url):
            return {}
        return {"Authorization": f"Bearer {self.value.get_secret_value()}"}

    def access_at(self, url: MediaUrl) -> Access:
        here = self.value is not None and url.origin == self.origin
        withheld = here and not is_private_way(url)
        return Access(self.variable, here and not withheld, self.grants, withheld)


def is_private_way(url: MediaUrl) -> bool:
    """Whether nobody on the way can read what is sent: https, or this very machine."""
    on_this_machine = url.host == "localhost" or (url.address is not None and url.address.is_loopback)
    return url.scheme == "https" or on_this_machine


def key_for(settings: Settings, kind: str, auth_env: str | None, origin: str, *, grants: str | None = None) -> Key:
    """The key for a kind of source: what `auth_env` names, else the kind's own. An entry's `auth_env` is said once for
    all its sources: where it names Hugging Face's or Civitai's own variable, that key is for that host alone.

    Raises:
        SyncError: `invalid` when the value is nothing that a header can hold.
    """
    keys = {"HF_TOKEN": settings.hf_token, "CIVITAI_API_KEY": settings.civitai_api_key}
    variable = _OWN.get(kind)
    if auth_env is not None and (auth_env not in keys or origin in _origins(settings)[auth_env]):
        variable = auth_env
    value = (keys.get(variable) or settings.secret(variable)) if variable is not None else None
    text = value.get_secret_value().strip() if value is not None else ""
    if text and not _SENDABLE.fullmatch(text):
        raise SyncError(SyncCode.INVALID, f"the value of {variable} is no key", "it has a space or a line break in it")
    return Key(variable, SecretStr(text) if text else None, origin, grants)


_OWN: Final = {"hf": "HF_TOKEN", "civitai": "CIVITAI_API_KEY"}


def _origins(settings: Settings) -> Mapping[str, frozenset[str]]:
    """Whose the variables are that the hosts themselves name."""
    hosts = {"HF_TOKEN": (settings.hf_endpoint, HF_HOSTS), "CIVITAI_API_KEY": (settings.civitai_url, CIVITAI_HOSTS)}
    return {
        variable: frozenset({MediaUrl.of(own).origin, *(f"https://{name}" for name in names)})
        for variable, (own, names) in hosts.items()
    }


@dataclass(frozen=True, slots=True)
class First:
    """Where a file is asked for first, and the key for it."""

    url: MediaUrl
    key: Key
    private: bool = True
    """Whether it may be at a private address, which only who wrote it himself can mean."""

    @property
    def shown(self) -> str:
        return self.url.shown


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the redirects ended, and what is to be kept in mind to ask there again.

    `away`: at another origin than the first. `moved`: at another address, which may be a signed one that expires.
    `headers` are the first origin's answers', joined.
    """

    url: MediaUrl
    told: str
    private: bool
    away: bool
    moved: bool
    headers: Mapping[str, str]


Satisfied = Callable[[Answer], bool]


def follow(
    connections: Connections,
    first: First,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    until: Satisfied = lambda _: False,
) -> tuple[Exchange, Landing]:
    """The answer at the end of the redirects, or the first that `until` is satisfied with. The caller closes it.

    Raises:
        SyncError: when there is no answer; `rejected` when the redirects lead nowhere that may be asked.
    """
    landing = Landing(first.url, first.shown, first.private, False, False, {})
    seen: set[str] = set()
    while True:
        exchange = ask(connections, first, landing, method=method, headers=headers)
        try:
            if not landing.away:
                landing = _with_headers(landing, exchange.answer)
            if exchange.answer.status not in REDIRECTS or until(exchange.answer):
                return exchange, landing
            seen.add(landing.url.text)
            landing = _next(first, landing, exchange)
            if landing.url.text in seen or len(seen) > MAX_REDIRECTS:
                how = "in a circle" if landing.url.text in seen else f"more than {MAX_REDIRECTS} times"
                raise SyncError(SyncCode.REJECTED, f"{first.shown} redirects {how}")
        except BaseException:
            exchange.close()
            raise
        exchange.close()


def ask(
    connections: Connections,
    first: First,
    landing: Landing,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Exchange:
    """Asks there, with the key where it belongs. Raises as `Connections.ask`."""
    # Once another host had a say, the key stays here, even if that host sends back to where the key is for.
    credentials = {} if landing.away else first.key.headers_for(landing.url)
    shown = {**(headers or {}), **credentials}
    return connections.ask(landing.url, landing.told, method=method, headers=shown, private=landing.private)


def _next(first: First, landing: Landing, exchange: Exchange) -> Landing:
    try:
        url = landing.url.redirected(exchange.answer.header("location"))
    except BadUrlError as failure:
        said = f"{landing.told} redirects to an address that cannot be fetched: {failure}"
        raise SyncError(SyncCode.REJECTED, said) from None
    away = landing.away or url.origin != first.url.origin
    # The path of an address that a host makes up may be as secret as its query.
    told = f"{first.shown} redirects, and {url.origin}" if away else first.shown
    # Who is reached in public has no business in a private network.
    private = landing.private and not exchange.wire.public
    return Landing(url, told, private, away, True, landing.headers)


def _with_headers(landing: Landing, answer: Answer) -> Landing:
    return replace(landing, headers={**landing.headers, **answer.headers})
