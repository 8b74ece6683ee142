# SPDX-License-Identifier: Apache-2.0
"""Launch digests of IGVM files, against a second walk written from the rules of the platforms."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_igvm as made
from troth.abi.igvm.file import BytesSource, open_
from troth.errors import FormatError, UsageError
from troth.measure import igvm
from troth.measure.igvm_runs import MAX_LINES, Run

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure")
PAGE = made.PAGE
ZEROS = bytes(PAGE)
NORMAL, VMSA, ZERO, UNMEASURED, SECRETS, CPUID = 1, 2, 3, 4, 5, 6


def chain(*updates):
    """The SNP digest of (type, gpa, page or None): SNP_LAUNCH_UPDATE, PAGE_INFO of 0x70 bytes."""
    digest = bytes(48)
    for kind, gpa, page in updates:
        contents = bytes(48) if page is None else hashlib.sha384(page).digest()
        info = digest + contents + struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, gpa)
        digest = hashlib.sha384(info).digest()
    return digest


def naive(data, *, native_zero=False, peer=False):
    """All updates of an SNP launch; knows nothing but the layout of the headers."""
    start, size = struct.unpack_from("<II", data, 8)
    at, areas, mask = start, {}, None
    while at < start + size:
        kind, length = struct.unpack_from("<II", data, at)
        body = at + 8
        at = body + (length + 7) // 8 * 8
        if kind == 1:
            bit, _, platform = struct.unpack_from("<IBB", data, body)
            mask = bit if platform == 2 else mask
        elif kind == 0x301:
            size_bytes, index = struct.unpack_from("<QI", data, body)
            areas[index] = size_bytes // PAGE
        elif kind == 0x303:
            gpa, its, index = struct.unpack_from("<QII", data, body)
            for number in range(1 if peer else areas[index]) if its & mask else ():
                yield UNMEASURED, gpa + number * PAGE, None
        elif kind == 0x304:
            gpa, its, offset = struct.unpack_from("<QII", data, body)
            if its & mask:
                yield VMSA, gpa, data[offset : offset + PAGE]
        elif kind == 0x302:
            gpa, its, offset, flags, of = struct.unpack_from("<QIIIH", data, body)
            if not its & mask or (flags & 4 and not peer):
                continue
            for number in range(512 if flags & 1 else 1):
                page = data[offset : offset + PAGE] if offset else ZEROS
                which = (
                    {1: SECRETS, 2: CPUID, 3: CPUID}.get(of)
                    or (flags & 2 and UNMEASURED)
                    or (native_zero and not offset and ZERO)
                    or NORMAL
                )
                yield which, gpa + number * PAGE, page if which == NORMAL else None


def measured(data, **options):
    return igvm.measure(open_(BytesSource(data)), **options)


@pytest.mark.vectors
def test_the_vector():
    folder = VECTORS / "igvm"
    if not folder.exists():
        pytest.skip(f"no vectors at {folder} (set TROTH_VECTORS)")
    expected = json.loads((folder / "expected.json").read_text())
    assert expected
    for name, digest in expected.items():
        data = (folder / name).read_bytes()
        found = measured(data)
        assert found.digest.hex() == digest
        assert found.id_block_digest == found.digest
        assert found.id_block_agrees
        assert chain(*naive(data)).hex() == digest
        native = measured(data, native_zero=True)
        assert native.digest == chain(*naive(data, native_zero=True)) != found.digest
        assert not native.id_block_agrees
        assert measured(data, compat="igvmmeasure").digest == found.digest


ONE_STEP = {
    NORMAL: "3b5db2165614578df5be1b3a7656a147a57cf73cf1a03bca"
    "ebb0f12c00c7d1e3cb2885ad03f030aa62d0467ebe76fda3",
    ZERO: "4472405c6dbc65e5629805f2be1b3df74eb119841eff1246"
    "6c24f43e67083c23df5e645b2742b6d9aa0f943e095cebaa",
    UNMEASURED: "8cd64e16495d28db9db5fb176885ec972db5d0b66163a37d"
    "abe352d30f8501701c570b7c146bf32d6d26903eb36f9398",
    SECRETS: "51f530bde774becf6f159aafaaeb748ad6f88d178be5f0ad"
    "6a466268ef2ad862ef20690ecc157e3b3b7b389c4c8d9677",
    CPUID: "5c2d762da872690f9043abc1a6cfa4b303fef58ecac6088d"
    "6bc3c6b92cd8a1cdcdee5c8449a1bdd9017895e83c44f8bd",
}  # fmt: skip


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (made.page(0x800000), NORMAL),
        (made.page(0x800000, 0), NORMAL),
        (made.page(0x800000, flags=2), UNMEASURED),
        (made.page(0x800000, 0, flags=2), UNMEASURED),
        (made.page(0x800000, 0, kind=1), SECRETS),
        (made.page(0x800000, kind=1, flags=2), SECRETS),
        (made.page(0x800000, 0, kind=2), CPUID),
        (made.page(0x800000, kind=3), CPUID),
    ],
)
def test_one_page(page, kind):
    data = made.made([made.platform(), made.policy(), page], ZEROS)
    assert measured(data).digest.hex() == ONE_STEP[kind]
    assert chain((kind, 0x800000, ZEROS if kind == NORMAL else None)).hex() == ONE_STEP[kind]


def test_native_zero():
    data = made.made([made.platform(), made.policy(), made.page(0x800000)], ZEROS)
    assert measured(data, native_zero=True).digest.hex() == ONE_STEP[ZERO]
    full = made.made([made.platform(), made.policy(), made.page(0x800000, 0)], ZEROS)
    assert measured(full, native_zero=True).digest.hex() == ONE_STEP[NORMAL]


def test_only_headers_of_the_platform_count():
    mine = [made.page(0x1000, 0), made.context(PAGE)]
    others = [
        made.page(0x1000, PAGE, mask=2),
        made.page(0x9000, PAGE, mask=4),
        made.area(index=7),
        made.insert(0xA000, 7, mask=2),
        made.context(0, gpa=0, mask=2),
        made.id_block(mask=2),
    ]
    platforms = [made.platform(1, made.SNP), made.platform(2, made.NATIVE), made.platform(4, 1)]
    data = made.counted(1) + made.vmsa()
    mixed = [
        *platforms, made.policy(mask=5), made.policy(mask=2), others[0], mine[0],
        *others[1:4], mine[1], *others[4:],
    ]  # fmt: skip
    alone = measured(made.made([made.platform(), made.policy(), *mine], data))
    found = measured(made.made(mixed, data))
    assert found.digest == alone.digest
    assert found.id_block_digest is None
    assert found.unmeasured == alone.unmeasured


def test_the_five_differences_of_igvmmeasure():
    areas = [made.area(3 * PAGE), made.usage(0x307), made.insert(0x5000)]
    shared = [made.page(0x1000, 0), made.page(0x2000, 0, flags=4), made.page(0x3000, flags=6)]
    head = [made.platform(), made.policy()]
    data = made.counted(1)

    insert = made.made([*head, *areas, made.page(0, 0)], data)
    three = [(UNMEASURED, 0x5000 + n * PAGE, None) for n in range(3)]
    assert measured(insert).digest == chain(*three, (NORMAL, 0, data))
    peer = measured(insert, compat="igvmmeasure")
    assert peer.digest == chain(three[0], (NORMAL, 0, data))

    pages = made.made([*head, *shared], data)
    assert measured(pages).digest == chain((NORMAL, 0x1000, data))
    assert measured(pages, compat="igvmmeasure").digest == chain(
        (NORMAL, 0x1000, data), (NORMAL, 0x2000, data), (UNMEASURED, 0x3000, None)
    )

    state = made.vmsa()
    two = made.made(
        [made.platform(), made.platform(2, made.SEV_ES), made.policy(mask=3),
         made.page(0, 0), made.context(PAGE, mask=2), made.context(PAGE)],
        data + state,
    )  # fmt: skip
    assert measured(two).digest == chain((NORMAL, 0, data), (VMSA, made.KVM_GPA, state))
    assert measured(two, compat="igvmmeasure").digest == chain(
        (NORMAL, 0, data), (VMSA, made.KVM_GPA, state), (VMSA, made.KVM_GPA, state)
    )

    bare = measured(made.made([made.platform(), made.page(0, 0)], data))
    assert bare.policy is None
    with pytest.raises(FormatError) as caught:
        igvm.check_policy(bare)
    assert caught.value.code == "igvm-policy-absent"
    igvm.check_policy(measured(insert))


def test_a_large_page_is_512_updates():
    data = made.made([made.platform(), made.policy(), made.page(0x200000, flags=1)], ZEROS)
    found = measured(data)
    assert found.digest == chain(*((NORMAL, 0x200000 + n * PAGE, ZEROS) for n in range(512)))
    assert list(found.runs) == [Run("Normal", 0x200000, 512)]
    two = [made.page(0x200000, flags=1), made.page(0x400000, flags=1), made.page(0x600000)]
    data = made.made([made.platform(), made.policy(), *two], ZEROS)
    assert measured(data).digest == chain(*naive(data))


def sev(kind, **options):
    pages = [
        made.page(0x1000, 0),
        made.page(0x2000),
        made.page(0x3000, PAGE, flags=2),
        made.page(0x4000, PAGE, flags=4),
        made.page(0x5000, PAGE, kind=1),
        made.area(),
        made.insert(0x9000),
        made.page(0x6000, PAGE),
    ]
    state = [made.context(2 * PAGE)] if kind == made.SEV_ES else [made.context(0, gpa=0)]
    data = made.counted(1) + made.counted(2) + made.vmsa(sev_features=0)
    return measured(made.made([made.platform(1, kind), *pages, *state], data), **options)


def test_sev_and_sev_es():
    one, two, state = made.counted(1), made.counted(2), made.vmsa(sev_features=0)
    plain = sev(made.SEV, platform="sev")
    # The order of addresses does not matter and unmeasured pages are not encrypted.
    assert plain.digest == hashlib.sha256(one + ZEROS + two).digest()
    assert any("igvmmeasure leaves them out" in line for line in plain.warnings)
    assert any("first state of processor 0" in line for line in plain.unmeasured)
    encrypted = sev(made.SEV_ES, platform="sev-es")
    assert encrypted.digest == hashlib.sha256(one + ZEROS + two + state).digest()
    assert not any("HOST_DATA" in line for line in encrypted.unmeasured)
    # igvmmeasure hashes whatever data a page has, and nothing for those without.
    peer = sev(made.SEV_ES, platform="sev-es", compat="igvmmeasure")
    assert peer.digest == hashlib.sha256(one + two + two + two + two + state).digest()


def reset_state(signature, features):
    """The state KVM gives to further processors, as QEMU leaves it at reset."""
    state = bytearray(PAGE)
    for offset, selector, attributes, base in (
        (0x00, 0, 0x93, 0), (0x10, 0xF000, 0x9B, 0xFFFF0000), (0x20, 0, 0x93, 0),
        (0x30, 0, 0x93, 0), (0x40, 0, 0x93, 0), (0x50, 0, 0x93, 0), (0x60, 0, 0, 0),
        (0x70, 0, 0x82, 0), (0x80, 0, 0, 0), (0x90, 0, 0x8B, 0),
    ):  # fmt: skip
        struct.pack_into("<HHIQ", state, offset, selector, attributes, 0xFFFF, base)
    for offset, value in (
        (0xD0, 0x1000), (0x148, 0x40), (0x158, 0x10), (0x160, 0x400), (0x168, 0xFFFF0FF0),
        (0x170, 2), (0x178, 0xFFF0), (0x268, 0x0007040600070406), (0x310, signature),
        (0x3B0, features), (0x3E8, 1),
    ):  # fmt: skip
        struct.pack_into("<Q", state, offset, value)
    struct.pack_into("<I", state, 0x408, 0x1F80)
    struct.pack_into("<H", state, 0x410, 0x37F)
    return bytes(state)


def test_further_processors():
    data = made.linux(2, state=made.vmsa(sev_features=0x21))
    further = (VMSA, made.KVM_GPA, reset_state(0xA00F11, 0x21))
    found = measured(data, vcpus=3, vcpu_signature=0xA00F11)
    assert found.digest == chain(*naive(data), further, further)
    assert [(item.vp_index, item.in_file) for item in found.vmsas] == [
        (0, True), (1, False), (2, False),
    ]  # fmt: skip
    assert measured(data, vcpus=1, vcpu_signature=0xA00F11).digest == chain(*naive(data))


def test_described_processors_are_not_added():
    data = made.linux(1, after=[made.context(PAGE, vp=2)])
    found = measured(data, vcpus=3, vcpu_signature=0x800F12)
    further = (VMSA, made.KVM_GPA, reset_state(0x800F12, 1))
    assert found.digest == chain(*naive(data), further)
    assert [item.vp_index for item in found.vmsas] == [0, 2, 1]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"vcpus": 0, "vcpu_signature": 0}, "vcpu-count"),
        ({"vcpus": 513, "vcpu_signature": 0}, "vcpu-count"),
        ({"vcpus": 2}, "vcpu-type"),
    ],
)
def test_wrong_processors(options, wanted):
    with pytest.raises(UsageError) as caught:
        measured(made.linux(1), **options)
    assert caught.value.code == wanted


def test_no_first_processor():
    data = made.made([made.platform(), made.policy(), made.page(0)], ZEROS)
    with pytest.raises(UsageError) as caught:
        measured(data, vcpus=2, vcpu_signature=0)
    assert caught.value.code == "igvm-first-processor"


def test_wrong_platforms():
    with pytest.raises(FormatError) as caught:
        measured(made.linux(1), platform="sev-es")
    assert caught.value.code == "igvm-platform-absent"
    arm = made.made([made.platform(1, made.CCA), made.page(0)], ZEROS, version=2, architecture=1)
    with pytest.raises(FormatError) as caught:
        measured(arm)
    assert caught.value.code == "igvm-architecture"


def test_every_unmeasured_input_is_named():
    data = made.made(
        [
            made.platform(),
            made.policy(0x30000),
            made.relocatable(gpa=0x40000000),
            made.page_tables(gpa=0x50000000),
            made.page(0x1000, kind=2),
            made.page(0x2000, kind=1),
            made.page(0x3000, flags=2),
            made.page(0x4000, flags=2),
            made.page(0x6000, flags=4),
            made.area(2 * PAGE, 5, 0),
            made.usage(0x30C, 5),
            made.usage(0x30E, 5, 100),
            made.usage(0x309, 5, 200),
            made.usage(0x309, 5, 300),
            made.insert(0x20000, 5),
            made.area(index=6),
            made.insert(0x30000, 6),
            made.memory(0, 1 << 30),
            made.error_range(0x7000),
            made.context(),
            made.id_block(bytes(range(48))),
        ],
        made.vmsa() + ZEROS,
    )
    text = "\n".join(measured(data).unmeasured)
    for line in (
        "CPUID page, which the host proposes and the secure processor checks: 1 page at 0x1000",
        "secrets page, which the secure processor fills: 1 page at 0x2000",
        "unmeasured page: 2 pages at 0x3000",
        "shared page, which the host can write: 1 page at 0x6000",
        "area 5 at 0x20000, 2 pages: the host writes MEMORY_MAP, COMMAND_LINE, MADT, over contents",
        "parameter area 6 at 0x30000, 1 page: the host writes nothing",
        "memory that must be there and that the file does not fill: 262137 of 262144 pages at 0x0",
        "error range, which is shared with the host: 1 page at 0x7000",
        "relocatable region, which the loader may move",
        "page tables, which the loader may rewrite",
        "ID block",
        "guest policy: 0x30000",
        "HOST_DATA",
    ):
        assert line in text, line


@pytest.mark.parametrize(
    ("pages", "areas", "wanted"),
    [
        # (address, pages) of what the file fills, of what it demands; what is said
        ([(0, 4)], [(0, 4)], []),
        ([(0, 2), (2, 2)], [(0, 3), (3, 1)], []),
        ([(2, 2), (0, 2)], [(0, 4)], []),
        ([(0, 8)], [(2, 1), (5, 2)], []),
        ([(0, 4)], [(0, 3), (1, 3)], []),
        ([(1, 2)], [(0, 4)], ["2 of 4 pages at 0x0"]),
        ([(0, 1), (9, 1)], [(0, 2), (8, 1)], ["1 of 2 pages at 0x0", "1 of 1 page at 0x8000"]),
        ([(4, 1)], [(0, 4), (5, 1)], ["4 of 4 pages at 0x0", "1 of 1 page at 0x5000"]),
    ],
)
def test_demanded_memory_is_named_where_no_page_fills_it(pages, areas, wanted):
    headers = [made.platform(), made.policy()]
    headers += [made.memory(gpa * PAGE, count * PAGE) for gpa, count in areas]
    headers += [made.page((gpa + n) * PAGE) for gpa, count in pages for n in range(count)]
    lines = measured(made.made([*headers, made.context()], made.vmsa())).unmeasured
    text = "memory that must be there and that the file does not fill: "
    assert [line.removeprefix(text) for line in lines if line.startswith("memory")] == wanted


def test_shared_pages_are_all_named():
    pages = [made.page(n * PAGE, 0, flags=4) for n in (0, 1, 2)] + [made.page(0x9000, flags=4)]
    lines = measured(made.made([made.platform(), made.policy(), *pages], ZEROS)).unmeasured
    assert "shared page, which the host can write: 3 pages at 0x0" in lines
    assert "shared page, which the host can write: 1 page at 0x9000" in lines


def test_lists_end_somewhere():
    pages = [made.page(n * 2 * PAGE, flags=2) for n in range(MAX_LINES + 50)]
    found = measured(made.made([made.platform(), made.policy(), *pages], ZEROS))
    assert len(found.unmeasured) == MAX_LINES + 1
    assert "52 further inputs" in found.unmeasured[-1]
    assert len(found.runs) == MAX_LINES + 50


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0xB0000, "DEBUG"),
        (0x10000, "bit 17"),
        (0x70000, "MIGRATE_MA"),
        (1 << 60 | 0x30000, "reserved"),
    ],
)
def test_policies_that_weaken(value, words):
    data = made.made([made.platform(), made.policy(value), made.page(0)], ZEROS)
    assert any(words in line for line in measured(data).warnings)
    assert measured(made.linux(1)).warnings == ()


def test_debug_is_said_even_in_a_broken_policy():
    data = made.made([made.platform(), made.policy(0x80000), made.page(0)], ZEROS)
    text = "\n".join(measured(data).warnings)
    assert "DEBUG" in text
    assert "bit 17" in text


_KINDS = st.tuples(
    st.sampled_from([None, 0, 1, 2, 3]),  # which data
    st.sampled_from([0, 0, 0, 2, 4, 6]),  # flags
    st.sampled_from([0, 0, 0, 1, 2, 3]),  # type
    st.sampled_from([1, 1, 1, 2, 3]),  # mask
    st.sampled_from([1, 1, 1, 2, 5]),  # step to the next
)


@given(st.lists(_KINDS, max_size=60), st.booleans(), st.booleans())
def test_it_is_as_the_second_walk(pages, native_zero, peer):
    headers = [made.platform(), made.platform(2, made.NATIVE), made.policy(mask=3)]
    gpa = 0
    for number, flags, kind, mask, step in pages:
        at = None if number is None else number * PAGE
        headers.append(made.page(gpa, at, mask=mask, flags=0 if kind else flags, kind=kind))
        gpa += step * PAGE
        if step == 5:
            headers += [made.area(2 * PAGE, gpa), made.insert(gpa, gpa, mask)]
            gpa += 2 * PAGE
    headers.append(made.context(4 * PAGE))
    data = made.made(headers, b"".join(made.counted(n) for n in range(4)) + made.vmsa())
    found = measured(data, native_zero=native_zero, compat="igvmmeasure" if peer else None)
    updates = list(naive(data, native_zero=native_zero, peer=peer))
    assert found.digest == chain(*updates)
    names = {NORMAL: "Normal", VMSA: "VMSA", ZERO: "Zero", UNMEASURED: "Unmeasured",
             SECRETS: "Secrets", CPUID: "Cpuid"}  # fmt: skip
    said = [(run.kind, run.gpa + n * PAGE) for run in found.runs for n in range(run.pages)]
    assert said == [(names[kind], gpa) for kind, gpa, _ in updates]
    assert sum(found.runs.pages_of().values()) == len(updates)


def test_long_stretches():
    """Longer than what is read at once, with a break in data, in address and in kind."""
    count = 700
    data = b"".join(made.counted(n) for n in range(count))
    order = [*range(300), *range(400, 700), *range(300, 400)]
    headers = [made.platform(), made.policy()]
    headers += [made.page(n * PAGE, at * PAGE) for n, at in enumerate(order)]
    headers += [made.page((count + n) * PAGE) for n in range(600)]
    file = made.made(headers, data)
    assert measured(file).digest == chain(*naive(file))
