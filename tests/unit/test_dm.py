# SPDX-License-Identifier: Apache-2.0
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import dm
from troth.errors import FormatError


def test_header_is_the_kernels_size_and_numbers_are_known() -> None:
    message = dm.request("x")
    assert len(message) == 312
    assert dm.ioctl_number(dm.DEV_CREATE) == 0xC138FD03
    assert struct.unpack_from("<3I", message) == (4, 0, 0)
    assert message[48:50] == b"x\0"


def test_load_request_is_contiguous_and_aligned() -> None:
    targets = (dm.Target(0, 8, "verity", "1 2 3"), dm.Target(8, 16, "linear", "/dev/x 0"))
    message = dm.request("two", targets=targets, flags=dm.READONLY)
    size, start, count = struct.unpack_from("<3I", message, 12)
    assert (size, start, count) == (len(message), 312, 2)
    offset = start
    for target in targets:
        begin, length, _status, following, kind = struct.unpack_from("<QQiI16s", message, offset)
        text = bytes(message[offset + 40 :]).split(b"\0")[0].decode()
        assert (begin, length, kind.rstrip(b"\0").decode(), text) == (
            target.start,
            target.length,
            target.kind,
            target.text,
        )
        assert following % 8 == 0
        offset += following
    assert offset == len(message)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 128, "é"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="cannot name a map"):
        dm.request(name)


def test_status_answer_counts_from_the_first_specification() -> None:
    body = bytearray()
    for index, text in enumerate((b"V", b"C and more")):
        following = 64 * (index + 1)
        body += struct.pack("<QQiI16s", 0, 8, 0, following, b"verity") + text
        body = body.ljust(following, b"\0")
    header = bytearray(dm.request("x"))
    struct.pack_into("<3I", header, 12, 312 + len(body), 312, 2)
    struct.pack_into("<Q", header, 40, (5 << 20) | (253 << 8) | 7)
    found = dm.answer(header + body)
    assert [target.text for target in found.targets] == ["V", "C and more"]
    assert found.minor == (5 << 8) | 7


@given(st.binary(max_size=2000))
def test_arbitrary_answers_are_read_or_refused(data: bytes) -> None:
    try:
        found = dm.answer(data)
    except FormatError as error:
        assert error.code == "dm-answer"
    else:
        assert len(found.targets) <= len(data) // 40
