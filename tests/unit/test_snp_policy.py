# SPDX-License-Identifier: Apache-2.0
"""The SNP guest policy, against numbers written by hand from the specification's table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import snp_policy as fuzzed
from troth.abi import snp_policy
from troth.abi.snp_policy import SnpPolicy
from troth.errors import FormatError, UsageError


def refused(code, function, *arguments, kind=FormatError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        (0x20000, SnpPolicy()),
        (0x30000, SnpPolicy(smt=True)),
        (0x3001F, SnpPolicy(smt=True, abi_minor=31)),
        (0x20137, SnpPolicy(abi_major=1, abi_minor=0x37)),
        (0x60000, SnpPolicy(migrate_ma=True)),
        (0xA0000, SnpPolicy(debug=True)),
        (0x120000, SnpPolicy(single_socket=True)),
        (0x220000, SnpPolicy(cxl_allow=True)),
        (0x420000, SnpPolicy(mem_aes_256_xts=True)),
        (0x820000, SnpPolicy(rapl_dis=True)),
        (0x1020000, SnpPolicy(ciphertext_hiding=True)),
        (0x2020000, SnpPolicy(page_swap_disable=True)),
    ],
)
def test_each_bit(value, policy):
    assert snp_policy.parse(value) == policy
    assert snp_policy.encode(policy) == value


def test_the_default_is_what_peers_take():
    assert snp_policy.DEFAULT == 0x30000


def test_bit_17_must_be_one():
    error = refused("snp-policy-bit-17", snp_policy.parse, 0x10000, where="a.igvm")
    assert error.where == "a.igvm"
    assert "0x30000" in error.hint
    refused("snp-policy-bit-17", snp_policy.parse, 0)


@pytest.mark.parametrize("bit", range(26, 64))
def test_reserved_bits(bit):
    refused("snp-policy-reserved", snp_policy.parse, 0x30000 | 1 << bit)


@pytest.mark.parametrize("value", [-1, 1 << 64, 1 << 64 | 0x30000])
def test_not_64_bits(value):
    refused("snp-policy-range", snp_policy.parse, value)


def test_versions_have_eight_bits():
    refused("snp-policy-range", snp_policy.encode, SnpPolicy(abi_minor=256))
    refused("snp-policy-range", snp_policy.encode, SnpPolicy(abi_major=-1))


@pytest.mark.parametrize("text", ["30000", "0x30000", "0X30000", "0x0000000000030000"])
def test_hex(text):
    assert snp_policy.parse_hex(text) == 0x30000


@pytest.mark.parametrize(
    "text",
    ["", "0x", "0x0x30000", "3000g", " 30000", "30_000", "+30000", "-30000", "٣0000", "0" * 17],
)
def test_no_hex(text):
    refused("snp-policy-syntax", snp_policy.parse_hex, text, kind=UsageError)


def test_hex_of_what_is_no_policy():
    error = refused("snp-policy-bit-17", snp_policy.parse_hex, "0x10000", kind=UsageError)
    assert "0x30000" in error.hint


def test_names_and_warnings():
    assert snp_policy.names(snp_policy.parse(0x1B0000)) == ("smt", "debug", "single_socket")
    assert snp_policy.warnings(snp_policy.parse(0x30000)) == ()
    said = snp_policy.warnings(snp_policy.parse(0xE0000))
    assert len(said) == 2
    assert "DEBUG" in said[0]
    assert "MIGRATE_MA" in said[1]


@given(st.integers(0, 2**64 - 1))
def test_arbitrary_numbers(value):
    fuzzed.fuzz(value.to_bytes(8, "little"))


@given(st.binary(max_size=24))
def test_arbitrary_bytes(data):
    fuzzed.fuzz(data)
