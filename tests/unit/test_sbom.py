# SPDX-License-Identifier: Apache-2.0
"""The SBOM: SPDX's required members, determinism, and its check against what was packed."""

from __future__ import annotations

import json

import pytest

from troth.documents import sbom
from troth.documents.bundle import Packed
from troth.documents.sbom import File, Package
from troth.errors import FormatError

A, B = "a" * 64, "b" * 64
PACKAGES = [Package("zlib1g", "1.2", "debian"), Package("g++", "1:5~a", "root")]
FILES = [File("usr/lib/libz.so.1", "1" * 40, A, "zlib1g"), File("init", "2" * 40, B, "")]
PACKED = [
    Packed("init", "file", 0o755, 3, B, "", "the entry"),
    Packed("usr", "directory", 0o755, 0, "", "", "a directory"),
    Packed("usr/lib/libz.so.1", "file", 0o644, 9, A, "", "a library"),
]


def document(packages=PACKAGES, files=FILES) -> bytes:
    return sbom.print_(
        image_name="demo", image_version="1", troth_version="0.1", created="1970-01-01T00:00:00Z",
        packages=packages, files=files,
    )  # fmt: skip


def test_members_that_spdx_requires():
    tree = json.loads(document())
    assert tree["spdxVersion"] == "SPDX-2.3"
    assert tree["dataLicense"] == "CC0-1.0"
    assert tree["documentNamespace"].startswith("urn:uuid:")
    ids = [item["SPDXID"] for item in (*tree["packages"], *tree["files"])]
    assert len(set(ids)) == len(ids) == 5
    for relation in tree["relationships"]:
        assert relation["spdxElementId"] in (*ids, "SPDXRef-DOCUMENT")
        assert relation["relatedSpdxElement"] in ids
    contained = {
        item["relatedSpdxElement"]: item["spdxElementId"]
        for item in tree["relationships"]
        if item["relatedSpdxElement"].startswith("SPDXRef-File")
    }
    assert contained["SPDXRef-File-1"].endswith("zlib1g")
    assert contained["SPDXRef-File-0"] == "SPDXRef-Image"
    for package in tree["packages"]:
        assert package["downloadLocation"] == "NOASSERTION"
    locators = [item["externalRefs"][0]["referenceLocator"] for item in tree["packages"][1:]]
    assert "pkg:deb/debian/g%2B%2B@1%3A5~a" in locators
    for file in tree["files"]:
        assert {item["algorithm"] for item in file["checksums"]} == {"SHA1", "SHA256"}


def test_a_python_package_beside_troth():
    """The purl type of PyPI, and the file is its own, not the image's."""
    tree = json.loads(
        document(
            packages=[Package("tpm2-pytss", "3.0.0", "pypi")],
            files=[File("usr/lib/python3.11/x.abi3.so", "1" * 40, A, "tpm2-pytss")],
        )
    )
    (package,) = tree["packages"][1:]
    assert package["externalRefs"][0]["referenceLocator"] == "pkg:pypi/tpm2-pytss@3.0.0"
    assert [
        item["spdxElementId"]
        for item in tree["relationships"]
        if item["relatedSpdxElement"] == "SPDXRef-File-0"
    ] == [package["SPDXID"]]


def test_order_of_inputs_does_not_matter_and_content_does():
    assert document() == document(PACKAGES[::-1], FILES[::-1])
    changed = json.loads(document(files=FILES[:1]))
    assert changed["documentNamespace"] != json.loads(document())["documentNamespace"]


def test_equal_to_what_was_packed():
    sbom.compare_files(document(), PACKED)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (PACKED[1:], "init is listed but not packed"),
        (
            [*PACKED, Packed("x", "file", 0o644, 1, A, "", "")],
            "x is packed but not listed",
        ),
        ([Packed("init", "file", 0o755, 3, A, "", ""), *PACKED[1:]], "init is packed as aaaa"),
    ],
)
def test_differences_are_named(packed, words):
    with pytest.raises(FormatError, match=words) as caught:
        sbom.compare_files(document(), packed)
    assert caught.value.code == "sbom-differs"


@pytest.mark.parametrize(
    ("old", "new"),
    [("SPDX-2.3", "SPDX-3.0"), ('"./init"', '"init"'), ('"./init"', '"./usr/lib/libz.so.1"')],
)
def test_broken(old, new):
    with pytest.raises(FormatError):
        sbom.files_of(document().decode().replace(old, new).encode())
