# SPDX-License-Identifier: Apache-2.0
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi import tpm_wire
from troth.errors import FormatError, Refusal
from troth.registers.tpm_raw import Tpm


def test_extend_is_the_bytes_of_the_library() -> None:
    command = tpm_wire.pcr_extend(14, (("sha256", b"\x11" * 32),))
    expected = ("800200000041000001820000000e0000000940000009000000000000000001000b") + "11" * 32
    assert command.hex() == expected
    assert len(command) == 0x41


def test_read_selects_by_bitmap() -> None:
    command = tpm_wire.pcr_read(("sha256",), (11, 14, 15))
    assert command.hex() == "8001000000140000017e00000001000b0300c800"


def answer(code: int, body: bytes = b"") -> bytes:
    return struct.pack(">HII", 0x8001, 10 + len(body), code) + body


def test_banks_without_pcrs_are_off() -> None:
    body = struct.pack(">BII", 0, 5, 2)
    body += struct.pack(">HB", 0x000B, 3) + b"\xff\xff\xff" + struct.pack(">HB", 4, 3) + bytes(3)
    assert tpm_wire.banks(body) == ("sha256",)


def test_unknown_active_bank_is_refused() -> None:
    body = struct.pack(">BIIHB", 0, 5, 1, 0x0012, 3) + b"\xff\xff\xff"
    with pytest.raises(FormatError) as caught:
        tpm_wire.banks(body)
    assert caught.value.code == "tpm-bank"


def test_values_of_another_size_are_refused() -> None:
    body = bytes(4) + struct.pack(">IHB", 1, 0x000B, 3) + b"\0\x40\0" + struct.pack(">IH", 1, 20)
    with pytest.raises(FormatError):
        tpm_wire.pcr_values(body + bytes(20), ("sha256",), (14,))


@given(st.binary(max_size=300), st.integers(0, 8))
def test_arbitrary_answers(data: bytes, count: int) -> None:
    for read in (
        lambda: tpm_wire.response(data),
        lambda: tpm_wire.banks(data),
        lambda: tpm_wire.pcr_values(data, ("sha384",), tuple(range(count))),
    ):
        try:
            read()
        except FormatError as error:
            assert error.code in {"tpm-response", "tpm-bank"}


class Scripted:
    def __init__(self, *answers: bytes | OSError) -> None:
        self.answers = list(answers)

    def transmit(self, command: bytes) -> bytes:
        found = self.answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found


def test_failures_have_their_own_codes() -> None:
    for transport, code in (
        (Scripted(OSError(5, "Input/output error")), "tpm-lost"),
        (Scripted(TimeoutError("late")), "tpm-lost"),
        (Scripted(answer(0x101)), "tpm-answer"),
    ):
        with pytest.raises(Refusal) as caught:
            Tpm(transport).extend(14, (("sha256", bytes(32)),))
        assert caught.value.code == code


def test_paravisor_index_is_there_or_not() -> None:
    assert Tpm(Scripted(answer(0, b"public"))).has_paravisor_report()
    assert not Tpm(Scripted(answer(0x18B))).has_paravisor_report()


def test_values_are_told_apart_by_bank_and_pcr() -> None:
    values = {
        (bank, pcr): bytes([index]) * tpm_wire.SIZES[bank]
        for index, (bank, pcr) in enumerate(
            (bank, pcr) for bank in ("sha1", "sha256") for pcr in (11, 14)
        )
    }
    head = tpm_wire.pcr_read(("sha1", "sha256"), (11, 14))[10:]
    body = bytes(4) + head + struct.pack(">I", 4)
    body += b"".join(struct.pack(">H", len(value)) + value for value in values.values())
    assert tpm_wire.pcr_values(body, ("sha1", "sha256"), (11, 14)) == values
    other = bytearray(body)
    other[13] ^= 1
    with pytest.raises(FormatError):
        tpm_wire.pcr_values(bytes(other), ("sha1", "sha256"), (11, 14))


def test_clock():
    """Part 3, 29.1: TPMS_TIME_INFO is time, then clock, resets, restarts, safe."""
    assert tpm_wire.read_clock() == bytes.fromhex("8001 0000000a 00000181")
    body = bytes.fromhex("00000000000003e8 00000000000007d0 00000005 00000002 01")
    assert tpm_wire.clock(body) == (5, 2, 2000)
    for wrong in (b"", body[:-1], body + b"\0"):
        with pytest.raises(FormatError) as caught:
            tpm_wire.clock(wrong)
        assert caught.value.code == "tpm-response"
