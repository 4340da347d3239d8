"""Where a media URL may lead."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from morpheus_worker.addresses import MAX_URL_BYTES, SHOWN_CHARACTERS, BadUrlError, MediaUrl, PrivateHosts, is_public

NOT_PUBLIC = {
    "unspecified": ["0.0.0.0", "::"],
    "this network": ["0.1.2.3"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fc00::1", "fd12:3456::1"],
    "link-local": ["169.254.0.1", "fe80::1", "febf::1"],
    "metadata": ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"],
    "shared (CGNAT)": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.8", "4000::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "site-local": ["fec0::1"],
    "discard only": ["100::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"],
    "compatible": ["::127.0.0.1", "::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::808:808"],
    # Of 65.54.227.120's server, its client's bits inverted: 192.168.1.1 and 127.0.0.1.
    "Teredo": ["2001:0:4136:e378:8000:63bf:3f57:fefe", "2001:0:4136:e378:8000:63bf:80ff:fffe"],
}
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1"),
    *("192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "168.63.129.17"),
    *("2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2620:fe::fe"),
    *("::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::8.8.8.8", "2001:0:4136:e378:8000:63bf:f7f7:f7f7"),
]


@pytest.mark.parametrize("text", [text for texts in NOT_PUBLIC.values() for text in texts])
def test_what_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_what_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    ("entry", "host", "address"),
    [
        ("*", "anything.example", "169.254.169.254"),
        ("minio", "minio", "10.1.2.3"),
        ("Minio.Local", "minio.local.", "fd00::1"),
        ("minio.local.", "MINIO.local", "127.0.0.1"),
        ("10.0.0.7", "somewhere.example", "10.0.0.7"),
        ("10.0.0.0/8", "somewhere.example", "10.255.0.1"),
        ("10.0.0.1/8", "somewhere.example", "10.255.0.1"),
        ("10.0.0.0/8", "somewhere.example", "::ffff:10.0.0.1"),
        ("10.0.0.0/8", "somewhere.example", "64:ff9b::10.0.0.1"),
        ("::1", "::1", "::1"),
        ("[::1]", "::1", "::1"),
        ("fd00::/8", "somewhere.example", "fd12::1"),
        ("", "somewhere.example", "8.8.8.8"),
    ],
)
def test_what_the_settings_open(entry: str, host: str, address: str) -> None:
    assert PrivateHosts.of([entry] if entry else []).allows(host, ip_address(address))


@pytest.mark.parametrize(
    ("entry", "host", "address"),
    [
        ("minio", "minio.evil.example", "10.1.2.3"),
        ("minio", "evil-minio", "10.1.2.3"),
        ("minio", "*", "10.1.2.3"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
        ("10.0.0.0/8", "10.0.0.1", "172.16.0.1"),
        ("10.0.0.0/8", "somewhere.example", "192.168.0.1"),
        ("10.0.0.0/8", "somewhere.example", "::ffff:192.168.0.1"),
        ("::1", "somewhere.example", "127.0.0.1"),
        ("", "somewhere.example", "10.0.0.1"),
    ],
)
def test_what_stays_closed(entry: str, host: str, address: str) -> None:
    assert not PrivateHosts.of([entry] if entry else []).allows(host, ip_address(address))


def test_every_entry_that_is_nothing_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a b', '10\.0\.0\.300', 'minio:9000', '10\.0\.0\.0/33'"):
        PrivateHosts.of(["a b", "minio", "10.0.0.300", "minio:9000", "10.0.0.0/33", "*"])


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/A", "https://example.com/A"),
        ("http://example.com:443/", "http://example.com:443/"),
        ("http://example.com:/a", "http://example.com/a"),
        ("http://example.com?x=1", "http://example.com/?x=1"),
        ("http://example.com/a?", "http://example.com/a"),
        ("http://example.com/a#b", "http://example.com/a"),
        ("http://example.com./a", "http://example.com./a"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("https://bücher.example/é?q=ü", "https://xn--bcher-kva.example/%C3%A9?q=%C3%BC"),
        ("http://example.com/a b\\c<d>", "http://example.com/a%20b%5Cc%3Cd%3E"),
        ("http://[2606:4700::1111]:8080/x", "http://[2606:4700::1111]:8080/x"),
        ("http://[2606:4700:0:0::1111]/", "http://[2606:4700::1111]/"),
    ],
)
def test_a_url_is_read(text: str, read: str) -> None:
    assert MediaUrl.of(text).text == read


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb/../c//d;e=f?X-Amz-Signature=0%2fA%2B+b&c=%26&d=a=b&e",
        "/%7Euser/~user/a%20b+c,(d)!*'@:$&=",
        "/%zz?%",
    ],
)
def test_path_and_query_stay_as_they_were_written(target: str) -> None:
    """A signature is made over the exact text."""
    assert MediaUrl.of("https://bucket.example" + target).target == target


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1.", "2130706433", "0x7f.1", "0x7f000001", "0X7F.1", "017700000001", "127.1"),
        *("0177.0.0.1", "127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1"),
    ],
)
def test_every_spelling_of_an_address_is_that_address(host: str) -> None:
    url = MediaUrl.of(f"http://{host}/")
    assert (url.address, url.host) == (IPv4Address("127.0.0.1"), "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no scheme"),
        ("example.com/x.png", "no scheme"),
        ("//example.com/x.png", "no scheme"),
        ("file:///etc/passwd", "'file'"),
        ("ftp://example.com/", "'ftp'"),
        ("gopher://example.com/", "'gopher'"),
        ("http://", "no host"),
        ("http:///x.png", "no host"),
        ("http:example.com", "no host"),
        ("http://:80/", "no host"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "port"),
        ("http://example.com:-1/", "port"),
        ("http://example.com:http/", "port"),
        ("http://user:secret@example.com/", "user name or password"),
        ("http://example.com\\@127.0.0.1/", "user name or password"),
        ("http://@example.com/", "user name or password"),
        ("http://exa mple.com/", "host"),
        ("http://exa%20mple.com/", "host"),
        ("http://exam\\ple.com/", "host"),
        ("http://example..com/", "host"),
        ("http://" + "a" * 64 + ".example/", "host"),
        ("http://" + "a." * 127 + "aa/", "host"),
        ("http://1.2.3.4.5/", "number"),
        ("http://4294967296/", "number"),
        ("http://08.1/", "number"),
        ("http://a.0x/", "number"),
        ("http://[::1/", "IPv6|not a URL"),
        ("http://[::1]x/", "IPv6|not a URL"),
        ("http://[fe80::1%25eth0]/", "IPv6|not a URL"),
        ("http://[fe80::1%eth0]/", "IPv6|not a URL"),
        ("http://[v1.x]/", "IPv6|not a URL"),
        ("http://[:::]/", "IPv6|not a URL"),
        ("http://\u202eexample.com/", "domain name"),
        ("http://example.com/\r\nHost: evil", "control character"),
        ("http://example.com/\x00", "control character"),
        ("http://exam\tple.com/", "control character"),
        ("http://example.com/\ud800", "surrogate"),
        ("http://example.com/" + "x" * MAX_URL_BYTES, "more than the 8192"),
        ("http://example.com/" + "é" * (MAX_URL_BYTES // 2), "more than the 8192"),
    ],
)
def test_a_bad_url_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadUrlError, match=said) as caught:
        MediaUrl.of(text)
    assert "secret" not in str(caught.value)


def test_a_url_is_shown_without_its_query_and_not_too_long() -> None:
    assert MediaUrl.of("https://example.com:8443/a/b.png?signature=s#f").shown == "https://example.com:8443/a/b.png"
    shown = MediaUrl.of("https://example.com/" + "x" * 1000).shown
    assert len(shown) == SHOWN_CHARACTERS
    assert shown.endswith("x…")


@pytest.mark.parametrize(
    ("path", "filename"),
    [
        ("/a/b.png", "b.png"),
        ("/a%20%C3%A9.png?x=/y.png", "a é.png"),
        ("/a/", None),
        ("", None),
        ("/%2e%2e%2fx", "../x"),
    ],
)
def test_the_filename_is_the_last_component_decoded(path: str, filename: str | None) -> None:
    assert MediaUrl.of("http://example.com" + path).filename == filename


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("https://cdn.example/y", "https://cdn.example/y"),
        ("//cdn.example/y", "https://cdn.example/y"),
        ("/y?z=1", "https://example.com/y?z=1"),
        ("y", "https://example.com/a/y"),
        ("../y", "https://example.com/y"),
        ("?z=1", "https://example.com/a/x?z=1"),
        ("", "https://example.com/a/x?signature=s"),
    ],
)
def test_a_redirect_is_resolved(location: str, there: str) -> None:
    assert MediaUrl.of("https://example.com/a/x?signature=s").redirected(location).text == there


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://example.com/a/x", "leaves https"),
        ("file:///etc/passwd", "'file'"),
        ("https://user:secret@cdn.example/", "user name"),
        ("http://[::1", "not a URL"),
        ("https://cdn.example/\udcff", "surrogate"),
    ],
)
def test_a_redirect_that_is_refused(location: str, said: str) -> None:
    with pytest.raises(BadUrlError, match=said):
        MediaUrl.of("https://example.com/a/x").redirected(location)


def test_a_redirect_from_http_to_https_is_taken() -> None:
    assert MediaUrl.of("http://example.com/a").redirected("https://example.com/a").scheme == "https"
