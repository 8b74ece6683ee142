# SPDX-License-Identifier: Apache-2.0
"""reference-values.json."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import lock as fuzz_documents
from troth.documents import reference_values
from troth.documents.reference_values import Case, Flags, ReferenceValues, Registers
from troth.errors import FormatError
from troth.record import replace

ONE = Registers((("sha1", 14, "3" * 40), ("sha256", 14, "1" * 64)), "4" * 96)
TWO = Registers((("sha256", 14, "2" * 64),), "5" * 96)
NONE = Registers((), "6" * 96)
SAMPLE = ReferenceValues(
    image_name="demo",
    svn=1,
    troth_version="0.1.0",
    platform="none",
    snp="none",
    vtpm="required",
    vtpm_kind="host",
    policy_sha256="a" * 64,
    root_hashes=(("root", "b" * 64), ("models", "c" * 64)),
    workload="",
    cases=(
        Case("baked", "console=ttyS0", "present", ONE, TWO),
        Case("baked", "console=ttyS0", "absent", NONE, NONE),
        Case("ovmf-direct", "console=ttyS0 initrd=initrd", "present", ONE, TWO),
    ),
    flags=Flags("unprotected", True, False, "integrity", False, "panic", "tmpfs", ("/",)),
)


def with_pcr(bank, index, value, *, times=1):
    registers = Registers(((bank, index, value),) * times, "4" * 96)
    return replace(SAMPLE, cases=(replace(SAMPLE.cases[0], handover=registers),))


def test_a_digest_that_is_not_of_its_command_line():
    data = reference_values.print_(SAMPLE).replace(b"console=ttyS0", b"console=ttyS1")
    with pytest.raises(FormatError) as caught:
        reference_values.parse(data)
    assert caught.value.code == "reference-cmdline"


def test_round_trip():
    data = reference_values.print_(SAMPLE)
    assert reference_values.parse(data) == SAMPLE
    assert data.endswith(b"}\n")


@pytest.mark.parametrize(
    "values",
    [
        replace(SAMPLE, platform="cloud"),
        replace(SAMPLE, svn=2**32),
        replace(SAMPLE, policy_sha256="A" * 64),
        with_pcr("sha256", 24, "1" * 64),
        with_pcr("sha1", 14, "1" * 64),
        with_pcr("md5", 14, "1" * 32),
        with_pcr("sha256", 14, "1" * 64, times=2),
        replace(SAMPLE, cases=SAMPLE.cases[:1] * 2),
        replace(SAMPLE, cases=(replace(SAMPLE.cases[0], tpm="broken"),)),
        replace(SAMPLE, cases=(replace(SAMPLE.cases[0], workload=Registers((), "4" * 64)),)),
        replace(SAMPLE, root_hashes=SAMPLE.root_hashes[:1] * 2),
        replace(SAMPLE, flags=replace(SAMPLE.flags, lockdown="off")),
    ],
)
def test_refused(values):
    with pytest.raises(FormatError):
        reference_values.parse(reference_values.print_(values))


@given(st.integers(0, 2500), st.binary(max_size=3))
def test_mutated(offset, insert):
    data = reference_values.print_(SAMPLE)
    fuzz_documents.fuzz(data[:offset] + insert + data[offset + 1 :])
