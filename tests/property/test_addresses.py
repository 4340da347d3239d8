"""URLs are read as the connection reads them, and an address is what it carries, whatever the text."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from morpheus_worker.addresses import MAX_URL_BYTES, Address, BadUrlError, MediaUrl, PrivateHosts, is_public

PIECES = st.sampled_from(
    [
        *("http://", "https:", "//", "/", "\\", "@", ":", "[", "]", "?", "#", "%", "%2f", ".", "..", "。", "…"),
        *("::1", "127.0.0.1", "0x7f", "1", "１", "80", "example.com", "bücher", "ß", "xn--", "user"),
        *(" ", "\t", "\n", "\x00", "\ud800"),
    ]
)
TEXTS = st.lists(PIECES | st.characters(), max_size=10).map("".join)
URLS = TEXTS | TEXTS.map("http://".__add__) | TEXTS.map("https://example.com/".__add__)
V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)


def read(text: str) -> MediaUrl | None:
    try:
        return MediaUrl.of(text)
    except BadUrlError:
        return None


def carries(address: Address) -> bool:
    """Whether it is an IPv6 address around an IPv4 one."""
    if isinstance(address, IPv4Address):
        return False
    return bool(address.ipv4_mapped or address.sixtofour or address.teredo) or int(address) >> 32 == 0x64FF9B << 64


@given(URLS)
def test_what_is_checked_is_what_is_connected_to(text: str) -> None:
    """The client reads the text that it is given once more, and finds the same host and the same port."""
    if url := read(text):
        as_sent = URL(url.text, encoded=True)
        assert (as_sent.scheme, as_sent.raw_host, as_sent.port) == (url.scheme, url.host, url.port)
        assert as_sent.raw_path_qs == url.target
        assert as_sent.raw_user is None
        assert urlsplit(url.text).hostname == url.host


@given(URLS)
def test_reading_a_url_again_changes_nothing(text: str) -> None:
    if url := read(text):
        assert MediaUrl.of(url.text) == url
        assert url.text.isascii()
        assert url.text.isprintable()


@given(URLS, URLS)
def test_a_redirect_leads_to_a_url_or_is_refused(text: str, location: str) -> None:
    if url := read(text):
        try:
            there = url.redirected(location)
        except BadUrlError:
            return
        assert there == MediaUrl.of(there.text)
        assert there.scheme == "https" or url.scheme == "http"


@given(URLS)
def test_a_host_is_a_name_or_the_address_it_spells(text: str) -> None:
    url = read(text)
    if url and url.address is not None:
        assert ip_address(url.host) == url.address
    elif url:
        assert not url.host.removesuffix(".").rpartition(".")[2].isdigit()


@given(st.text(max_size=MAX_URL_BYTES))
def test_no_text_breaks_the_reader(text: str) -> None:
    read(text)


@given(V4)
def test_an_address_is_what_it_carries(address: IPv4Address) -> None:
    number = int(address)
    carriers = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2001_0000 << 96) | (int(IPv4Address("8.8.8.8")) << 64) | (number ^ 0xFFFF_FFFF)),
    ]
    assert {is_public(carrier) for carrier in carriers} == {is_public(address)}


@given(V4 | V6)
def test_what_python_calls_private_is_never_public(address: Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert not is_public(address) or carries(address)


@given(V4 | V6)
def test_nothing_is_open_unless_it_is_opened(address: Address) -> None:
    assert PrivateHosts().allows("example.com", address) == is_public(address)
    assert PrivateHosts.of([str(address)]).allows("example.com", address)
    assert PrivateHosts.of(["*"]).allows("example.com", address)
