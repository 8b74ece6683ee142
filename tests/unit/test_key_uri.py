# SPDX-License-Identifier: Apache-2.0
"""Where keys come from, as a manifest says it."""

import ast
import importlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import troth
from fuzz import key_uri as fuzz_key_uri
from troth.documents import key_uri, resource_path
from troth.documents.key_uri import KeyUri
from troth.documents.resource_path import ResourcePath
from troth.errors import FormatError

UUID = "6f1c0d1e-9f3a-4a39-8d3e-0242ac120002"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kbs:///default/disk-key/data",
         KeyUri("kbs", resource=ResourcePath("default", "disk-key", "data"))),
        (f"kbs://main-2/a/_b/{UUID}",
         KeyUri("kbs", broker="main-2", resource=ResourcePath("a", "_b", UUID))),
        ("kbs:///-/a./b..c", KeyUri("kbs", resource=ResourcePath("-", "a.", "b..c"))),
        ("spiffe://example.org/vm/Demo_1",
         KeyUri("spiffe", trust_domain="example.org", path="/vm/Demo_1")),
        ("spiffe://example.org", KeyUri("spiffe", trust_domain="example.org")),
        ("snp:", KeyUri("snp", fields=("measurement", "policy"))),
        ("snp:tcb,measurement", KeyUri("snp", fields=("measurement", "tcb"))),
        ("random:", KeyUri("random")),
        ("file:data-1", KeyUri("file", name="data-1")),
    ],
)  # fmt: skip
def test_uris(text, found):
    assert key_uri.parse(text) == found
    assert key_uri.parse(str(found)) == found


FORM, SCHEME, PATH = "key-uri-form", "key-uri-scheme", "resource-path"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", SCHEME), ("kbs", SCHEME), ("KBS:///a/b/c", SCHEME), (" kbs:///a/b/c", SCHEME),
        ("https://a/b/c", SCHEME), ("tpm2:", SCHEME), ("tang:http://a", SCHEME), ("tpm2", SCHEME),
        ("kbs:", FORM), ("kbs:/a/b/c", FORM), ("kbs://a", FORM), ("kbs://A/a/b/c", FORM),
        ("kbs://a:1/a/b/c", FORM), ("kbs://u@a/a/b/c", FORM), (f"kbs://{'a' * 21}/a/b/c", FORM),
        ("kbs:///a/b", PATH), ("kbs:///a/b/c/d", PATH), ("kbs:///a/b/c?x", PATH),
        ("kbs:///a/b/c#x", PATH), ("kbs:///a/b/", PATH), ("kbs:///a//c", PATH),
        ("kbs:///a/../c", PATH), ("kbs:///a/.b/c", PATH), ("kbs:///a/b/%2e", PATH),
        ("kbs:///a/b/\u00e9", PATH), ("kbs:///a/b/c\n", PATH), (f"kbs:///a/b/{'c' * 129}", PATH),
        ("spiffe:", FORM), ("spiffe:///a", FORM), ("spiffe://a/", FORM), ("spiffe://a//b", FORM),
        ("spiffe://a/b/", FORM), ("spiffe://a/..", FORM), ("spiffe://A/b", FORM),
        ("spiffe://a:1/b", FORM), ("spiffe://a/b?c", FORM), ("spiffe://a/b%20", FORM),
        (f"spiffe://{'a' * 256}/b", FORM), (f"spiffe://a/{'b' * 1024}", FORM),
        ("snp:,", FORM), ("snp:policy,", FORM), ("snp:policy,policy", FORM), ("snp:vmpl", FORM),
        ("snp: policy", FORM), ("snp://policy", FORM), ("snp:POLICY", FORM),
        ("random:x", FORM), ("random://", FORM),
        ("file:", FORM), ("file:/keys/a", FORM), ("file:../a", FORM), ("file:A", FORM),
        (f"file:{'a' * 21}", FORM),
    ],
)  # fmt: skip
def test_uris_that_are_refused(text, code):
    with pytest.raises(FormatError) as caught:
        key_uri.parse(text)
    assert caught.value.code == code
    assert len(str(caught.value)) < 300


def test_later_sources_are_told_so():
    for scheme in key_uri.LATER:
        with pytest.raises(FormatError, match="this version"):
            key_uri.parse(f"{scheme}:")


def test_every_scheme_has_its_module():
    for name in key_uri.MODULES.values():
        assert callable(importlib.import_module(name).make)
    for name in (key_uri.PINNED_CA, key_uri.PLATFORM):
        importlib.import_module(name)


def test_an_image_carries_what_its_uris_need():
    def names(text, **options):
        found = key_uri.modules(key_uri.parse(text), **options)
        return [name.rpartition(".")[2] for name in found]

    assert names("kbs:///a/b/c") == ["kbs", "platform"]
    assert names("kbs:///a/b/c", by_issuer=True) == ["kbs", "platform", "issued_by"]
    assert names("spiffe://a/b", by_issuer=True) == ["spiffe", "platform", "issued_by"]
    assert names("snp:", by_issuer=True) == ["snp", "platform"]
    assert names("random:") == ["random"]
    assert names("file:a") == ["file"]


#: What costs too much in a guest, or is the host's.
BARRED = {
    "argparse", "dataclasses", "http", "logging", "pathlib", "re", "requests", "typing", "urllib",
}  # fmt: skip


def test_guests_import_little():
    """What the modules say themselves; what they lead to is the profiles' to know."""
    root = Path(troth.__file__).parent
    names = [*(root / "boot" / "key_sources").glob("*.py"), *(root / "ciphers").glob("*.py")]
    documents = (
        "base64_text", "broker_calls", "jwe", "jwk", "kbs", "kbs_error", "kbs_evidence", "key_uri",
        "resource_path", "volume_key",
    )  # fmt: skip
    names += [root / "documents" / f"{name}.py" for name in documents]
    assert len(names) > 25
    for path in names:
        module = ast.parse(path.read_text("utf-8"))
        for node in module.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                node.body.clear()
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                assert not {item.name.split(".")[0] for item in node.names} & BARRED, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in BARRED, path


@settings(max_examples=100)
@given(st.text(max_size=40), st.sampled_from(sorted(key_uri.MODULES)))
def test_noise_after_a_scheme(text, scheme):
    for rest in (text, f"//{text}", f"///{text}"):
        fuzz_key_uri.fuzz(f"{scheme}:{rest}".encode("utf-8", "surrogatepass"))


@settings(max_examples=50)
@given(st.lists(st.from_regex(r"[A-Za-z0-9_-]+[A-Za-z0-9_.-]*", fullmatch=True).filter(
    lambda text: len(text) <= 128), min_size=3, max_size=3))  # fmt: skip
def test_whatever_the_protocol_calls_a_name(parts):
    assert str(resource_path.parse("/".join(parts))) == "/".join(parts)
