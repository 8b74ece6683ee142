# SPDX-License-Identifier: Apache-2.0
"""reference-values.json, and the statement that is signed of it."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import reference_values as fuzz_values
from made_values import IGVM, NONE, ONE, OVMF, SIGNED_VALUES, TWO, VALUES
from troth.documents import reference_values_json as document
from troth.documents.reference_values import (
    BOOT_CHAIN,
    NEVER,
    Case,
    Registers,
    launch_cmdline,
)
from troth.errors import FormatError
from troth.record import replace


def with_pcr(bank, index, value, *, times=1):
    registers = Registers(((bank, index, value),) * times, "4" * 96)
    return replace(VALUES, launch=(), cases=(replace(VALUES.cases[0], handover=registers),))


def with_launch(**changes):
    return replace(VALUES, launch=(replace(IGVM, **changes),))


def code_of(data):
    with pytest.raises(FormatError) as caught:
        document.parse(data)
    return caught.value.code


def test_a_digest_that_is_not_of_its_command_line():
    data = document.print_(VALUES).replace(b"console=ttyS0", b"console=ttyS1")
    assert code_of(data) == "reference-cmdline"


@pytest.mark.parametrize("values", [VALUES, SIGNED_VALUES, replace(SIGNED_VALUES, expires=NEVER)])
def test_round_trip(values):
    data = document.print_(values)
    assert document.parse(data) == values
    assert data.endswith(b"}\n")
    assert document.from_statement(document.to_statement(values)) == values


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (replace(VALUES, platform="cloud"), "json-type"),
        (replace(VALUES, svn=2**32), "json-type"),
        (replace(VALUES, policy_sha256="A" * 64), "json-type"),
        (with_pcr("sha256", 24, "1" * 64), "json-type"),
        (with_pcr("sha1", 14, "1" * 64), "json-type"),
        (with_pcr("md5", 14, "1" * 32), "json-type"),
        (with_pcr("sha256", 14, "1" * 64, times=2), "reference-twice"),
        (replace(VALUES, cases=VALUES.cases[:1] * 2), "reference-twice"),
        (replace(VALUES, cases=(replace(VALUES.cases[0], tpm="broken"),)), "json-type"),
        (
            replace(VALUES, cases=(replace(VALUES.cases[0], workload=Registers((), "4" * 64)),)),
            "json-type",
        ),
        (replace(VALUES, root_hashes=VALUES.root_hashes[:1] * 2), "reference-twice"),
        (replace(VALUES, flags=replace(VALUES.flags, lockdown="off")), "json-type"),
        (replace(VALUES, flags=replace(VALUES.flags, simulated=True)), "reference-launch"),
        (replace(VALUES, snp="simulated"), "reference-launch"),
        (replace(VALUES, products=("Rome",)), "reference-text"),
        (replace(VALUES, products=("Genoa", "Genoa")), "reference-twice"),
        (replace(VALUES, revoked=("0" * 95,)), "reference-text"),
        (replace(VALUES, revoked=("0" * 96,) * 2), "reference-twice"),
        (replace(VALUES, revoked=("E" * 96,)), "reference-text"),
        (replace(VALUES, artefacts=VALUES.artefacts[:1] * 2), "reference-twice"),
        (replace(VALUES, artefacts=(("../x", "1" * 64),)), "reference-text"),
        (replace(VALUES, artefacts=(("a/b", "1" * 64),)), "reference-text"),
        (replace(VALUES, inputs=VALUES.inputs[:1] * 2), "reference-twice"),
        (replace(VALUES, commit="abc"), "reference-text"),
        (replace(VALUES, commit="D" * 40), "reference-text"),
        (replace(VALUES, issued="2026-03-01T00:00:00Z"), "reference-dates"),
        (replace(VALUES, expires=NEVER), "reference-dates"),
        (replace(SIGNED_VALUES, expires=SIGNED_VALUES.issued), "reference-dates"),
        (replace(SIGNED_VALUES, expires="2025-01-01T00:00:00Z"), "reference-dates"),
        (replace(SIGNED_VALUES, expires="tomorrow"), "time-form"),
        (replace(SIGNED_VALUES, issued="2026-03-01 00:00:00Z"), "time-form"),
        (replace(VALUES, launch=(IGVM, IGVM)), "reference-twice"),
        (replace(VALUES, launch=(IGVM, replace(OVMF, digest=IGVM.digest))), "reference-twice"),
        (with_launch(digest="e" * 94), "json-type"),
        (with_launch(kind="svsm"), "json-type"),
        (with_launch(platform="none"), "json-type"),
        (with_launch(platform="simulated"), "reference-launch"),
        (with_launch(kind="simulated"), "reference-launch"),
        (with_launch(file="../guest.igvm"), "reference-text"),
        (with_launch(file=""), "reference-text"),
        (with_launch(ovmf_hash="9" * 96), "json-type"),
        (with_launch(cmdline="console=ttyS1"), "reference-launch"),
        (with_launch(form="ovmf-direct"), "reference-launch"),
        (with_launch(vcpus=0), "json-type"),
        (with_launch(vcpus=513), "json-type"),
        (with_launch(vcpu_signature=0x800F12), "reference-launch"),
        (with_launch(cpu_types=("EPYC", "EPYC")), "reference-twice"),
        (with_launch(cpu_types=("a b",)), "reference-text"),
        (with_launch(memory_bytes=0), "reference-launch"),
        (with_launch(covers=("kernel", "luck")), "reference-text"),
        (with_launch(covers=("kernel", "kernel")), "reference-twice"),
        (with_launch(vmm="xen"), "json-type"),
        (replace(VALUES, launch=(replace(OVMF, memory_bytes=1),)), "reference-launch"),
        (replace(VALUES, launch=(replace(OVMF, ovmf_hash=""),)), "json-type"),
        (replace(VALUES, launch=(replace(OVMF, form="plain"),)), "reference-launch"),
    ],
)
def test_refused(values, code):
    assert code_of(document.print_(values)) == code


def test_too_many_launches_are_refused():
    many = tuple(replace(IGVM, digest=f"{number:096x}") for number in range(4097))
    assert code_of(document.print_(replace(VALUES, launch=many))) == "reference-count"


@pytest.mark.parametrize("name", sorted(document.to_tree(VALUES)))
def test_each_field_is_needed(name):
    tree = document.to_tree(VALUES)
    del tree[name]
    assert code_of(json.dumps(tree).encode()) == "json-missing"


def test_an_unknown_or_repeated_field_is_refused():
    data = document.print_(VALUES)
    assert code_of(data.replace(b'"svn": 3', b'"svn": 3, "svm": 3')) == "json-unknown"
    assert code_of(data.replace(b'"svn": 3', b'"svn": 3, "svn": 3')) == "json-duplicate"
    data = data.replace(b'"vmm": "qemu"', b'"vmm": "qemu", "debug": true')
    assert code_of(data) == "json-unknown"


def test_half_a_surrogate_pair_is_refused():
    data = document.print_(VALUES).replace(b'"image_name": "demo"', b'"image_name": "\\ud800"')
    assert code_of(data) == "reference-text"


def test_what_roots_the_boot_chain():
    assert IGVM.roots_boot_chain
    assert OVMF.roots_boot_chain
    for missing in BOOT_CHAIN:
        covers = tuple(word for word in IGVM.covers if word != missing)
        assert not replace(IGVM, covers=covers).roots_boot_chain
    assert not replace(IGVM, platform="svsm").roots_boot_chain


def test_the_firmware_gets_the_text_without_the_words_it_appends():
    assert launch_cmdline(OVMF) == "console=ttyS0"
    assert launch_cmdline(IGVM) == "console=ttyS0"
    assert launch_cmdline(replace(IGVM, cmdline="a initrd=initrd")) == "a initrd=initrd"


def test_revoked_launches_are_out_of_force():
    assert VALUES.in_force == (IGVM, OVMF)
    assert replace(VALUES, revoked=(IGVM.digest,)).in_force == (OVMF,)


# --- the statement --------------------------------------------------------------------------


def test_the_statement_names_the_files_of_the_bundle():
    tree = json.loads(document.to_statement(SIGNED_VALUES))
    assert tree["_type"] == "https://in-toto.io/Statement/v1"
    assert tree["subject"][0] == {"name": "vmlinuz", "digest": {"sha256": "1" * 64}}
    assert tree["predicateType"] == "urn:troth:reference-values:v1"
    assert tree["predicate"] == json.loads(document.print_(SIGNED_VALUES))


VMLINUZ = {"name": "vmlinuz", "digest": {"sha256": "1" * 64}}


def changed(**changes):
    tree = json.loads(document.to_statement(SIGNED_VALUES))
    return json.dumps({**tree, **changes}).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (changed(_type="https://in-toto.io/Statement/v0.1"), "statement-type"),
        (changed(predicateType="https://slsa.dev/provenance/v1"), "statement-predicate"),
        (changed(subject=[]), "statement-subject"),
        (changed(subject=[VMLINUZ]), "statement-subject"),
        (
            changed(subject=[VMLINUZ, VMLINUZ]),
            "statement-subject",
        ),
        (changed(subject=[{"name": "vmlinuz", "digest": {"sha512": "1" * 128}}]), "json-missing"),
        (
            changed(subject=[{"name": "x", "digest": {"sha256": "1" * 64, "sha1": "0" * 40}}]),
            "json-unknown",
        ),
        (changed(predicate=None), "json-type"),
        (changed(more=1), "json-unknown"),
        (
            document.to_statement(VALUES).replace(b'"predicate":', b'"predicate":{},"predicate":'),
            "json-duplicate",
        ),
        (document.print_(SIGNED_VALUES), "json-missing"),
        (b"{}", "json-missing"),
        (b"[]", "json-type"),
    ],
)  # fmt: skip
def test_statements_refused(data, code):
    with pytest.raises(FormatError) as caught:
        document.from_statement(data)
    assert caught.value.code == code


def test_two_orders_of_keys_make_one_statement():
    """What is signed does not depend on how somebody laid the values out."""
    tree = document.to_tree(VALUES)
    turned = json.dumps(dict(reversed(tree.items())), indent=7).encode()
    payload = document.to_statement(document.parse(turned))
    assert (
        hashlib.sha256(payload).digest() == hashlib.sha256(document.to_statement(VALUES)).digest()
    )


@given(st.integers(0, 6500), st.binary(max_size=3))
def test_mutated(offset, insert):
    data = document.print_(SIGNED_VALUES)
    fuzz_values.fuzz(data[:offset] + insert + data[offset + 1 :])


@given(st.binary(max_size=100))
def test_random(data):
    fuzz_values.fuzz(data)


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    st.integers(1, 512),
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), ("sha256", "sha384")]),
)
def test_round_trip_of_made_values(names, vcpus, signature, banks):
    registers = Registers(tuple((bank, 4, "0" * (64 if "256" in bank else 96)) for bank in banks),
                          "6" * 96)  # fmt: skip
    values = replace(
        VALUES,
        cases=(
            Case("plain", "x", "absent", NONE, registers),
            Case("plain", "x", "present", ONE, TWO),
        ),
        root_hashes=tuple((name, "0" * 64) for name in names),
        launch=(
            replace(IGVM, cmdline="x", vcpus=vcpus, cpu_types=("T",), vcpu_signature=signature),
        ),
    )  # fmt: skip
    assert document.parse(document.print_(values)) == values
