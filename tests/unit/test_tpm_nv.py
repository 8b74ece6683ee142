# SPDX-License-Identifier: Apache-2.0
"""NV commands: their bytes as tpm2-tools sends them, and answers that are not believed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import tpm_nv as fuzzed
from model_tpm import OWNER_RW, PROPERTY, READ, WRITE, WRITTEN, ModelTpm
from troth.abi import tpm_nv
from troth.errors import FormatError, ProviderError
from troth.registers.tpm_nv import NvIndices

INDEX = 0x01400001
SESSION = "00000009" + "40000009" + "0000" + "00" + "0000"


def code_of(function, *arguments, kind=FormatError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    return caught.value.code


def indices(tpm, **options):
    return NvIndices(tpm, where="tpm", sleep=lambda _s: None, **options)


# --- bytes: part 3 of the specification, written out by hand ---------------------------------


def test_commands_by_hand():
    assert tpm_nv.read_public(INDEX).hex() == "8001" + "0000000e" + "00000169" + "01400001"
    assert tpm_nv.buffer_max().hex() == (
        "8001" + "00000016" + "0000017a" + "00000006" + "0000012c" + "00000001"
    )
    assert tpm_nv.read(INDEX, tpm_nv.OWNER, size_bytes=1024, offset=512).hex() == (
        "8002" + "00000023" + "0000014e" + "40000001" + "01400001" + SESSION + "0400" + "0200"
    )
    assert tpm_nv.write(INDEX, INDEX, b"\xab\xcd", offset=3).hex() == (
        "8002" + "00000025" + "00000137" + "01400001" + "01400001" + SESSION + "0002abcd" + "0003"
    )
    assert tpm_nv.define_space(INDEX, OWNER_RW, size_bytes=64).hex() == (
        "8002" + "0000002d" + "0000012a" + "40000001" + SESSION + "0000"
        + "000e" + "01400001" + "000b" + "00020002" + "0000" + "0040"
    )  # fmt: skip


@pytest.mark.parametrize(("size", "offset"), [(2049, 0), (1, 0xFFFF), (2, -1)])
def test_what_no_command_holds(size, offset):
    assert code_of(tpm_nv.read, INDEX, tpm_nv.OWNER, size_bytes=size, offset=offset) == "tpm-nv"
    if offset >= 0:
        assert code_of(tpm_nv.write, INDEX, INDEX, bytes(size), offset=offset) == "tpm-nv"


# --- answers ---------------------------------------------------------------------------------

PUBLIC = struct.pack(">IHIHH", INDEX, 0x000B, OWNER_RW | WRITTEN, 0, 2600)
NAME = b"\0\x22\0\x0b" + bytes(32)


def test_what_an_index_says_of_itself():
    found = tpm_nv.public_of(struct.pack(">H", 14) + PUBLIC + NAME, INDEX)
    assert (found.index, found.size_bytes, found.kind) == (INDEX, 2600, 0)
    assert found.attributes & WRITTEN
    counter = PUBLIC[:6] + struct.pack(">I", OWNER_RW | 1 << 4) + PUBLIC[10:]
    assert tpm_nv.public_of(struct.pack(">H", 14) + counter + NAME, INDEX).kind == 1
    policy = PUBLIC[:10] + struct.pack(">H", 32) + bytes(32) + PUBLIC[12:]
    assert tpm_nv.public_of(struct.pack(">H", 46) + policy + NAME, INDEX).size_bytes == 2600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack(">H", 14) + PUBLIC,
        struct.pack(">H", 13) + PUBLIC + NAME,
        struct.pack(">H", 14) + PUBLIC + NAME + b"\0",
        struct.pack(">H", 14) + b"\1\x40\0\2" + PUBLIC[4:] + NAME,
        struct.pack(">H", 14) + PUBLIC[:10] + b"\xff\xff" + PUBLIC[12:] + NAME,
        struct.pack(">H", 0xFFFF) + PUBLIC[:10] + b"\xff\xf1" + PUBLIC[12:] + NAME,
    ],
)
def test_publics_that_are_refused(body):
    assert code_of(tpm_nv.public_of, body, INDEX) == "tpm-response"


def test_how_much_at_once_is_bounded():
    for said, used in ((64, 64), (1024, 1024), (0xFFFFFFFF, 2048)):
        assert tpm_nv.buffer_max_of(struct.pack(">BIIII", 0, 6, 1, 0x12C, said)) == used
    for body in (
        b"",
        struct.pack(">BIIII", 0, 6, 1, 0x12C, 63),
        struct.pack(">BIIII", 0, 6, 2, 0x12C, 64),
        struct.pack(">BIIII", 0, 6, 1, 0x12D, 64),
        struct.pack(">BIIII", 0, 6, 1, 0x12C, 64) + b"\0",
    ):
        assert code_of(tpm_nv.buffer_max_of, body) == "tpm-response"


@pytest.mark.parametrize("said", [0, 1, 63, 65, 0xFFFF])
def test_data_of_another_size(said):
    body = struct.pack(">IH", said + 2, said) + bytes(64) + b"\0\0\1\0\0"
    assert code_of(tpm_nv.data_of, body, size_bytes=64) == "tpm-response"
    body = struct.pack(">IH", said + 2, 64) + bytes(64) + b"\0\0\1\0\0"
    assert code_of(tpm_nv.data_of, body, size_bytes=64) == "tpm-response"


@given(st.binary(max_size=200))
def test_random_answers(data):
    fuzzed.fuzz(data)


@given(st.sampled_from(fuzzed.SEEDS), st.integers(0, 90), st.integers(1, 255))
def test_changed_answers(seed, at, change):
    data = bytearray(seed)
    data[at % len(data)] ^= change
    fuzzed.fuzz(bytes(data))


# --- indices ---------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(64, 2048))
def test_an_index_is_read_and_written_whole(size, at_once):
    data = bytes(i * 7 % 251 for i in range(size))
    tpm = ModelTpm({INDEX: [OWNER_RW | WRITTEN, bytes(size)]}, buffer_bytes=at_once)
    nv = indices(tpm)
    public = nv.public(INDEX)
    nv.write(public, data)
    assert tpm.indices[INDEX][1] == data
    assert nv.read(public) == data


def test_an_index_that_is_not_there():
    tpm = ModelTpm({})
    nv = indices(tpm)
    assert nv.public(INDEX) is None
    assert nv.define(INDEX, size_bytes=64).size_bytes == 64
    assert tpm.indices == {INDEX: [OWNER_RW, bytes(64)]}


def test_whose_authority():
    def used(attributes, act):
        tpm = ModelTpm({INDEX: [attributes, bytes(64)]})
        sent = []
        carry = tpm.transmit
        tpm.transmit = lambda command: (sent.append(command), carry(command))[1]
        nv = indices(tpm)
        act(nv, nv.public(INDEX))
        return struct.unpack_from(">I", sent[-1], 10)[0]

    read, write = NvIndices.read, lambda nv, public: nv.write(public, bytes(64))
    assert used(1 << 17 | 1 << 18, read) == tpm_nv.OWNER
    assert used(1 << 18, read) == INDEX
    assert used(1 << 1, write) == tpm_nv.OWNER
    assert used(1 << 2, write) == INDEX
    for act in (read, write):
        assert code_of(used, 1 << 19 | 1 << 3, act, kind=ProviderError) == "provider-tpm"


@pytest.mark.parametrize(
    "answer",
    [
        OSError(5, "Input/output error"),
        TimeoutError("late"),
        b"",
        struct.pack(">HII", 0x8001, 11, 0),
        struct.pack(">HII", 0x8001, 10, 0x149),
        struct.pack(">HII", 0x8001, 10, 0),
    ],
)
@pytest.mark.parametrize("code", [READ, PROPERTY])
def test_a_tpm_that_fails(code, answer):
    tpm = ModelTpm({INDEX: [OWNER_RW | WRITTEN, bytes(64)]})
    nv = indices(tpm)
    public = nv.public(INDEX)
    tpm.answers[code] = answer
    assert code_of(nv.read, public, kind=ProviderError) == "provider-tpm"


def test_a_busy_tpm_is_asked_again_and_not_for_ever():
    tpm = ModelTpm({INDEX: [OWNER_RW, bytes(64)]})
    nv = indices(tpm)
    public = nv.public(INDEX)
    tpm.answers[WRITE] = struct.pack(">HII", 0x8001, 10, 0x922)

    def free(code, _index):
        if tpm.commands.count(WRITE) == 3:
            tpm.answers.clear()

    tpm.on = free
    nv.write(public, b"\1" * 64)
    assert tpm.indices[INDEX][1] == b"\1" * 64
    tpm.on = lambda code, index: None
    tpm.answers[WRITE] = struct.pack(">HII", 0x8001, 10, 0x922)
    assert code_of(nv.write, public, bytes(64), kind=ProviderError) == "provider-tpm"


def test_data_of_another_size_is_not_written():
    tpm = ModelTpm({INDEX: [OWNER_RW, bytes(64)]})
    nv = indices(tpm)
    assert code_of(nv.write, nv.public(INDEX), bytes(63), kind=ProviderError) == "provider-tpm"
    assert WRITE not in tpm.commands
