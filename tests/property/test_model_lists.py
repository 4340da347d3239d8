"""Whatever a list or a reference says: it is read without an error of another kind, and no key in it gets out."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morpheus_worker.manifest import ManifestError, ModelEntry, PackEntry, parse_manifest
from morpheus_worker.sync.editing import new_manifest_text, with_entries
from morpheus_worker.sync.locking import parse_lock
from morpheus_worker.sync.oldlist import read_old_list
from morpheus_worker.sync.refs import parse_ref, shown_source, without_credentials
from morpheus_worker.sync.terms import SyncError

SECRET = "0f3aSECRET7b9c2d"

words = st.sampled_from(["GIT", "URL", "URL_AUTH", "MODEL", "MODLE", "DUMMY_URL", "", "url"])
names = st.sampled_from(
    ["loras/a.safetensors", "checkpoints", "vae/", "Pack", "", " x ", "models/vae/b.pt", "../a", "DUMMY_URL"]
)
hosts = st.sampled_from(["civitai.com", "huggingface.co", "github.com", "files.example.com", "127.0.0.1:8000", "[::1]"])
paths = st.sampled_from(
    ["api/download/models/7", "a/b/resolve/main/c.bin", "a/b", "x,y.safetensors", "", "models/1", "a/b/tree/main"]
)
parameters = st.sampled_from(["token", "api_key", "Signature", "X-Amz-Credential", "accessToken", "key", "password"])


@st.composite
def urls_with_a_key(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(["https", "http", "HTTPS"]))
    host, path = draw(hosts), draw(paths)
    query = f"{draw(parameters)}={SECRET}"
    match draw(st.integers(0, 4)):
        case 0:
            return f"{scheme}://{host}/{path}?{query}"
        case 1:
            return f"{scheme}://{host}/{path}?type=Model&{query}&v=1"
        case 2:
            return f"{scheme}://user:{SECRET}@{host}/{path}"
        case 3:
            return f"{scheme}://{SECRET}@{host}/{path}?a=1,2"
    return f"{scheme}://{host}/{path}#{query}"


@st.composite
def lines_with_a_key(draw: st.DrawFn) -> str:
    fields = [draw(words), draw(names), draw(urls_with_a_key()), *draw(st.lists(names, max_size=1))]
    return draw(st.sampled_from([",", " , ", ", "])).join(fields)


@given(st.lists(lines_with_a_key(), max_size=6))
def test_no_key_of_a_list_gets_out(lines: list[str]) -> None:
    found = read_old_list("\n".join(lines), name="old.txt")
    assert SECRET not in str(found)
    assert SECRET not in new_manifest_text(found.models, found.packs)


@given(urls_with_a_key())
def test_no_key_of_a_reference_gets_out(url: str) -> None:
    with pytest.raises(SyncError) as caught:
        parse_ref(url)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.what} {caught.value.hint}"
    assert SECRET not in without_credentials(url).url


@given(st.lists(st.one_of(lines_with_a_key(), st.text())))
@example(["GIT,[,https://[/"])
@example(["URL,a/b,https://a:b/c"])
def test_a_list_is_read_whatever_it_says_and_what_it_comes_to_is_a_manifest(lines: list[str]) -> None:
    found = read_old_list("\n".join(lines), name="old.txt")
    manifest = parse_manifest(new_manifest_text(found.models, found.packs), name="m.yaml")
    assert (manifest.models, manifest.custom_nodes) == (found.models, found.packs)


@given(
    st.one_of(
        st.text(), st.builds("{}{}".format, st.sampled_from(["hf:", "civitai:", "https://", "s3:", "urn:"]), st.text())
    )
)
@example("https://[/")
@example("https://a:b/c")
def test_a_reference_is_read_or_refused(text: str) -> None:
    try:
        found = parse_ref(text)
    except SyncError:
        return
    if isinstance(found, dict):
        assert shown_source(found)


@given(st.one_of(st.text(), st.text(alphabet="[]{}:,-?!&*|>'\"# \n\tab1", max_size=60)))
@example("{a: " * 40)
@example("? {a: 1}\n: b")
@example("!!set {a, b}")
@example("a: !!timestamp x")
@example("version: 1\nmodels: [{id: a, path: b/c, sources: [{kind: https, url: 'https://[/'}]}]")
def test_a_manifest_and_a_lock_are_read_or_refused_with_places(text: str) -> None:
    for parse in (parse_manifest, parse_lock):
        try:
            parse(text, name="m")
        except ManifestError as failure:
            places = [problem.at for problem in failure.problems]
        else:
            places = []
        assert all(place.startswith("m:") for place in places)


line_texts = st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and "_" not in text)


@settings(max_examples=60)
@given(
    line_texts,
    line_texts,
    st.sampled_from(["version: 1\n", "{version: 1}", "version: 1\r\nmodels: [] # c", "version: 1\nmodels:"]),
)
def test_any_text_in_an_entry_comes_back(license_text: str, workflow: str, before: str) -> None:
    entry = ModelEntry("a", PurePosixPath("vae/a"), workflows=(workflow,), license=license_text)
    pack = PackEntry("P", "https://host/a/p", workflows=(workflow,))
    manifest = parse_manifest(with_entries(before, [entry], [pack]), name="m.yaml")
    assert (manifest.models, manifest.custom_nodes) == ((entry,), (pack,))
