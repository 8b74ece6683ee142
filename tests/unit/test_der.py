# SPDX-License-Identifier: Apache-2.0
"""Single DER values and the extensions of VCEK and VLEK, spelled out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_pki import AMD, CHIP, TURIN_CHIP, vek_extensions
from troth.abi import der
from troth.abi import vek_extensions as vek
from troth.abi.snp_tcb import Tcb
from troth.errors import FormatError


def refused(call, code):
    with pytest.raises(FormatError) as caught:
        call()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("020100", 0),
        ("02017f", 127),
        ("02020080", 128),
        ("020200db", 219),
        ("0201ff", -1),
        ("0202ff7f", -129),
        ("0203010000", 65536),
    ],
)
def test_integers(data, value):
    assert der.integer(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    "data",
    [
        "",
        "02",
        "0200",
        "0201",
        "020000",
        "02020000",
        "0202007f",
        "0202ffff",
        "02020100ff",
        "02810100",
        "0282000100",
        "02800100",
        "0283000001ff",
        "040100",
        "0a0100",
        "220100",
        "02ff00",
        "0284000000010000",
    ],
)
def test_refused_integers(data):
    refused(lambda: der.integer(bytes.fromhex(data)), "der-value")


def test_strings():
    assert der.ia5_string(b"\x16\x08Milan-B0") == "Milan-B0"
    assert der.ia5_string(b"\x16\x00") == ""
    for broken in (b"\x16\x01\n", b"\x16\x01\x80", b"\x0c\x01a", b"\x16\x02a", b"\x16\x01\x7f"):
        refused(lambda data=broken: der.ia5_string(data), "der-value")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535])
def test_lengths(size):
    raw = bytes(size)
    data = der.encode(der.OCTET_STRING, raw)
    assert der.content(data, der.OCTET_STRING) == raw
    refused(lambda: der.content(data + b"\0", der.OCTET_STRING), "der-value")
    refused(lambda: der.content(data[:-1], der.OCTET_STRING), "der-value")


def test_too_long():
    refused(lambda: der.encode(der.OCTET_STRING, bytes(65536)), "der-value")


@given(st.binary(max_size=300))
def test_one_way_to_write_each_value(data):
    for tag in (der.INTEGER, der.OCTET_STRING, der.IA5_STRING):
        candidate = bytes([tag]) + data
        try:
            raw = der.content(candidate, tag)
        except FormatError:
            continue
        assert der.encode(tag, raw) == candidate


def extensions(line, **changes):
    return {oid: raw for oid, raw, _ in vek_extensions(line, **changes)}


def test_vcek():
    read = vek.parse(extensions("Genoa"))
    assert read == vek.VekExtensions(
        struct_version=0,
        product_name="Genoa-B0",
        tcb=Tcb(None, 10, 0, 0x1B, 0x54),
        reserved=(0, 0, 0, 0),
        hwid=CHIP,
        csp_id=None,
    )


def test_turin():
    read = vek.parse(extensions("Turin"))
    assert (read.struct_version, read.product_name) == (1, "Turin")
    assert read.tcb == Tcb(1, 2, 3, 4, 0x51)
    assert read.reserved == (0, 0, 0)
    assert read.hwid == TURIN_CHIP


def test_vlek():
    read = vek.parse(extensions("Milan", vlek=True))
    assert (read.hwid, read.csp_id) == (None, "CN=cloud.example")
    assert read.product_name == "Milan"


@pytest.mark.parametrize("first", [0x00, 0x02, 0x04, 0xFF])
@pytest.mark.parametrize("size", [8, 64])
def test_chip_ids_begin_with_any_byte(first, size):
    chip = bytes([first, size]) + bytes(range(3, size + 1))
    assert vek.parse(extensions("Milan", chip=chip)).hwid == chip
    assert vek.parse(extensions("Milan", chip=bytes([4, size]) + chip)).hwid == chip


@pytest.mark.parametrize("oid", ["1", "2", "3.1", "3.2", "3.3", "3.8"])
def test_what_must_be_there(oid):
    refused(lambda: vek.parse(extensions("Genoa", change={oid: None})), "vek-extension")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"3.1": b"\x02\x02\x01\x00"}, "vek-extension"),
        ({"3.1": b"\x02\x01\xff"}, "vek-extension"),
        ({"3.1": b"\x02\x02\x00\x7f"}, "der-value"),
        ({"3.4": b"\x04\x01\x00"}, "der-value"),
        ({"3.9": b"\x02\x02\x01\x00"}, "vek-extension"),
        ({"1": b"\x02\x01"}, "der-value"),
        ({"2": b"\x0c\x05Milan"}, "der-value"),
        ({"4": bytes(7)}, "vek-extension"),
        ({"4": bytes(63)}, "vek-extension"),
        ({"4": bytes(65)}, "vek-extension"),
        ({"4": b"\x05\x40" + bytes(64)}, "der-value"),
        ({"4": b"\x04\x41" + bytes(64)}, "der-value"),
        ({"4": b"\x04\x3f" + bytes(64)}, "der-value"),
        ({"4": b""}, "vek-extension"),
        ({"5": b"\x16\x02a"}, "der-value"),
        ({"5": b"\x16\x81\x80" + b"a" * 128}, "vek-extension"),
        ({"2": b"\x16\x82\xff\xff" + b"a" * 65535}, "vek-extension"),
    ],
)
def test_refused_extensions(change, code):
    refused(lambda: vek.parse(extensions("Genoa", change=change)), code)


@given(
    st.dictionaries(st.sampled_from([AMD + str(n) for n in (1, 2, 4, 5)]), st.binary(max_size=70))
)
def test_arbitrary_values(change):
    try:
        vek.parse(extensions("Milan") | change)
    except FormatError as error:
        assert error.code in ("vek-extension", "der-value")
