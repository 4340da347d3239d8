"""Where a media URL may lead: strictly read URLs, public addresses, and the private hosts that the settings open.

Decisions only; `fetching` looks names up and connects.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_BYTES: Final = 8 * 1024
SHOWN_CHARACTERS: Final = 120

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_NOT_PUBLIC: Final = tuple(
    IPv4Network(network)
    for network in (
        # IANA's registry of special-purpose IPv4 addresses, and multicast.
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # Azure answers its machines here, out of public space: credentials, like 169.254.169.254 elsewhere.
        "168.63.129.16/32",
    )
)
# `ipaddress.is_global` is not asked: what it says changed between patch releases of one Python (CVE-2024-4032).

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_IN_IT: Final = tuple(
    # Protocol assignments, and two blocks for documentation (IANA's registry of special-purpose IPv6 addresses).
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "3fff::/20")
)
_NAT64: Final = IPv6Network("64:ff9b::/96")

# An underscore is no letter of a host name, and yet container networks hand such names out.
_HOST_NAME: Final = re.compile(r"(?=.{1,253}\.?\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_BRACKETED: Final = re.compile(r"\[[0-9a-f.:]*:[0-9a-f.:]*\](:[0-9]*)?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

# All that RFC 3986 lets stand in a path or a query, and %: what is percent-encoded already stays as it is, because
# signatures are made over the exact text.
_LEFT_AS_IT_IS: Final = "%!$&'()*+,/:;=?@[]"


class BadUrlError(ValueError):
    """A URL that is refused as it stands. The message says why and repeats nothing secret."""


def is_public(address: Address) -> bool:
    """Whether anybody's server may be there: none of loopback, private, link-local (and so the metadata services of
    clouds), multicast, reserved, unspecified, documentation, shared (CGNAT).

    An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64, Teredo) is what it carries.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    if carried := _carried(address):
        return all(is_public(each) for each in carried)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_IN_IT)


def _carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a packet to this IPv6 address ends at, or passes through."""
    if isinstance(address, IPv4Address):
        return ()
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    single = address.ipv4_mapped or address.sixtofour
    return (single,) if single is not None else address.teredo or ()


@dataclass(frozen=True, slots=True)
class PrivateHosts:
    """Hosts that media URLs may lead to although they are private."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    everything: bool = False

    @classmethod
    def of(cls, entries: Sequence[str]) -> Self:
        """Reads host names, addresses, networks (`10.0.0.0/8`) and `*`, which opens everything.

        Raises:
            ValueError: naming every entry that is none of these.
        """
        words = [entry.strip().lower() for entry in entries]
        networks = {word: network for word in words if (network := _network(word)) is not None}
        names = {word: name for word in words if word not in networks and (name := _name(word)) is not None}
        if wrong := [word for word in words if word not in networks and word not in names and word != "*"]:
            raise ValueError(f"neither a host name, an address, a network nor *: {', '.join(map(repr, wrong))}")
        return cls(frozenset(names.values()), tuple(networks.values()), "*" in words)

    def allows(self, host: str, address: Address) -> bool:
        """Whether a URL that names `host` may lead to `address`: one that is public, or opened."""
        if self.everything or host.lower().removesuffix(".") in self.names or self._is_open(address):
            return True
        carried = _carried(address)
        return bool(carried) and all(self._is_open(each) for each in carried)

    def _is_open(self, address: Address) -> bool:
        return is_public(address) or any(address in network for network in self.networks)


def _network(word: str) -> Network | None:
    try:
        return ip_network(word.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None


def _name(word: str) -> str | None:
    try:
        host = _host(word)
    except BadUrlError:
        return None
    return host.removesuffix(".") if isinstance(host, str) else None


@dataclass(frozen=True, slots=True)
class MediaUrl:
    """An http(s) URL, read once, so that what is checked is what is connected to.

    `host` is in lower-case ASCII, or an address in its one canonical form, which `address` then holds; `target` is the
    path and the query as they are sent: as they were written, with only what no URL may hold percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: Address | None

    @classmethod
    def of(cls, text: str) -> Self:
        """Reads a URL; a fragment is dropped.

        Raises:
            BadUrlError: when it cannot be fetched as it stands.
        """
        parts = _split(text)
        host, port = _host(parts.hostname or ""), _port(parts)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = None if isinstance(host, str) else host
        return cls(parts.scheme, str(host), port, quote(target, safe=_LEFT_AS_IT_IS), address)

    def redirected(self, location: str) -> Self:
        """Where an answer from here sends to.

        Raises:
            BadUrlError: when that cannot be fetched. From https it may not lead to http: who wrote https wants what
                arrives to be what the host sent, and a plain hop lets anybody on the way change it.
        """
        try:
            joined = urljoin(self.text, location)
        except ValueError:
            raise BadUrlError("it is not a URL") from None
        there = type(self).of(joined)
        if self.scheme == "https" and there.scheme == "http":
            raise BadUrlError("it leaves https for http, where anybody on the way could change what arrives")
        return there

    @property
    def text(self) -> str:
        return f"{self.origin}{self.target}"

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def filename(self) -> str | None:
        """The last component of the path, decoded; not checked for anything."""
        return unquote(self.path.rpartition("/")[2]) or None

    @property
    def shown(self) -> str:
        """For messages: without its query and the params of its path, which may hold a signature or a session, and not
        too long."""
        whole = self.origin + self.path.partition(";")[0]
        return whole if len(whole) <= SHOWN_CHARACTERS else whole[: SHOWN_CHARACTERS - 1] + "…"


def _split(text: str) -> SplitResult:
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_URL_BYTES:
        raise BadUrlError(f"it has {size} bytes, more than the {MAX_URL_BYTES} allowed")
    # urlsplit drops some of them silently, and so would read another URL than the one that was written.
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise BadUrlError("it has a control character or half a surrogate pair in it")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise BadUrlError("it is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        named = f"its scheme is '{parts.scheme[:20]}'" if parts.scheme else "it has no scheme"
        raise BadUrlError(f"{named}; only http and https are fetched")
    if "@" in parts.netloc:
        raise BadUrlError("it has a user name or password in it")
    if "[" in parts.netloc and not _BRACKETED.fullmatch(parts.netloc):
        raise BadUrlError("its host is no IPv6 address")
    return parts


def _port(parts: SplitResult) -> int:
    try:
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise BadUrlError("its port is not a number from 1 to 65535")
    return port


def _host(name: str) -> str | Address:
    """The host in lower-case ASCII, or the address that it spells.

    Raises:
        BadUrlError: when it is neither.
    """
    if ":" in name:
        return _ipv6(name)
    host = name.lower() if name.isascii() else _in_ascii(name)
    if not _HOST_NAME.fullmatch(host):
        raise BadUrlError("it has no host that can be looked up" if host else "it has no host")
    # A host that ends in a number is an IPv4 address in one of its old spellings, as browsers read it (WHATWG URL,
    # "ends in a number"): 2130706433, 0x7f.1 and 127.0.0.1. are one machine.
    if not _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]):
        return host
    try:
        return IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        raise BadUrlError("its host is a number, but no address") from None


def _ipv6(name: str) -> IPv6Address:
    try:
        return IPv6Address(name)
    except ValueError:
        raise BadUrlError("its host is no IPv6 address") from None


def _in_ascii(name: str) -> str:
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        raise BadUrlError("its host is no international domain name") from None
