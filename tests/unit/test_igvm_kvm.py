# SPDX-License-Identifier: Apache-2.0
"""What QEMU and KVM do not launch as it is measured, one broken rule at a time."""

import os
from pathlib import Path

import pytest

import made_igvm as made
from troth.abi.igvm.file import BytesSource, open_
from troth.errors import FormatError
from troth.measure import igvm_kvm

VECTOR = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/igvm/tooling_bzimage_x64.igvm")
PAGE = made.PAGE


def codes(data, **options):
    return [item.code for item in igvm_kvm.check(open_(BytesSource(data)), **options)]


def with_state(**fields):
    return made.linux(2, state=made.vmsa(**fields))


def test_a_file_as_builders_make_it():
    assert codes(made.linux(4)) == []
    assert codes(made.linux(4, version=2)) == []


@pytest.mark.vectors
def test_the_vector_is_for_another_hypervisor():
    if not VECTOR.exists():
        pytest.skip(f"no vectors at {VECTOR} (set TROTH_VECTORS)")
    found = {item.code: item for item in igvm_kvm.check(open_(BytesSource(VECTOR.read_bytes())))}
    assert {"igvm-kvm-vmsa-gpa", "igvm-kvm-vmsa-cr0", "igvm-kvm-order"} <= set(found)
    assert found["igvm-kvm-order"].times == 18
    assert "0x803000" in found["igvm-kvm-vmsa-gpa"].message


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (made.linux(1, after=[made.page(0x9000000)]), ["igvm-kvm-order"]),
        (made.linux(1, after=[made.page(0x9000000, flags=2)]), ["igvm-kvm-order"]),
        (
            made.linux(1, after=[made.area(), made.insert(0x9000000)]),
            ["igvm-kvm-order", "igvm-kvm-insert-order"],
        ),
        (
            made.linux(
                1, before=[made.page(0x5000), made.area(), made.usage(0x307), made.insert(0x8000)]
            ),
            ["igvm-kvm-insert-order"],
        ),
        (made.linux(1, before=[made.area(), made.usage(0x307), made.insert(0x8000)]), []),
        (
            made.linux(1, after=[made.context(PAGE, vp=1)]),
            ["igvm-kvm-vmsa-twice", "igvm-kvm-vmsa-index"],
        ),
        (made.linux(1, before=[made.area(data_at=0)]), ["igvm-kvm-parameter-data"]),
        (with_state(cr0=0x30), []),
        (with_state(cr0=0x10), ["igvm-kvm-vmsa-cr0"]),
        (with_state(cr0=0x80000031), ["igvm-kvm-vmsa-cr0"]),
        (with_state(cr4=0x20), ["igvm-kvm-vmsa-cr4"]),
        (with_state(efer=0), ["igvm-kvm-vmsa-efer"]),
        (with_state(sev_features=0), ["igvm-kvm-sev-features"]),
        (with_state(sev_features=0x21), []),  # DebugSwap
        (with_state(sev_features=0x29), []),
        (with_state(cr2=1), ["igvm-kvm-vmsa-field"]),
        (with_state(virtual_tom=1 << 40), ["igvm-kvm-vmsa-field"]),
        (with_state(reserved=1), ["igvm-kvm-vmsa-field"]),
        (made.linux(1, before=[made.page(0x5000, flags=4)]), ["igvm-kvm-shared"]),
        (made.linux(1, before=[made.error_range(0x5000)]), ["igvm-kvm-header"]),
        (made.linux(1, before=[made.area(), made.usage(0x308)]), ["igvm-kvm-header"]),
        (made.linux(1, before=[made.area(), made.usage(0x30F)]), ["igvm-kvm-header"]),
        (made.linux(1, before=[made.area(), made.usage(0x310)]), ["igvm-kvm-header"]),
        (made.linux(1, before=[made.area(), made.usage(0x30A)]), ["igvm-kvm-header"]),
        (
            made.linux(
                1,
                before=[
                    made.area(),
                    *(made.usage(kind) for kind in (0x307, 0x309, 0x30C, 0x30E, 0x312, 0x313)),
                ],
            ),
            [],
        ),
        (made.linux(1, after=[made.vbs()]), ["igvm-kvm-header"]),
        (made.linux(1, after=[made.id_block()]), []),
        (made.linux(1, after=[made.id_block(author_enabled=1)]), ["igvm-kvm-author-key"]),
        (made.linux(1, after=[made.id_block(author_curve=2)]), ["igvm-kvm-author-key"]),
        (made.linux(1, after=[made.id_block(author_enabled=1, author_curve=2)]), []),
    ],
)
def test_each_rule(data, wanted):
    assert codes(data) == wanted


def test_where_the_vmsa_is():
    headers = [made.platform(), made.policy(), made.page(0, 0), made.context(PAGE, gpa=0x8000)]
    assert codes(made.made(headers, bytes(PAGE) + made.vmsa())) == ["igvm-kvm-vmsa-gpa"]


def test_no_vmsa():
    headers = [made.platform(), made.policy(), made.page(0, 0)]
    assert codes(made.made(headers, bytes(PAGE))) == ["igvm-kvm-vmsa-absent"]


@pytest.mark.parametrize("kind", [0x102, 0x103, 0x104, 0x106])
def test_initialisation_headers_that_qemu_does_not_know(kind):
    header = {
        0x102: made.relocatable(gpa=0x40000000),
        0x103: made.page_tables(gpa=0x40000000),
        0x104: made.corim(0, 8),
        0x106: (0x106, bytes(32)),
    }[kind]
    headers = [made.platform(), made.policy(), header, made.page(0, 0), made.context(PAGE)]
    assert codes(made.made(headers, bytes(PAGE) + made.vmsa())) == ["igvm-kvm-header"]


def test_policies():
    for value, wanted in ((0x10000, 1), (1 << 40 | 0x30000, 1), (0x30000, 0), (0xB0000, 0)):
        headers = [made.platform(), made.policy(value), made.page(0, 0), made.context(PAGE)]
        found = codes(made.made(headers, bytes(PAGE) + made.vmsa()))
        assert found == ["igvm-kvm-policy"] * wanted


def test_what_is_of_another_platform_does_not_count():
    headers = [
        made.platform(1),
        made.platform(2, made.NATIVE),
        made.platform(4, made.SEV_ES),
        made.policy(),
        made.policy(0, mask=2),
        made.page(0, 0),
        made.context(PAGE),
        made.page(0x1000, 0, mask=2, flags=4),
        made.context(0, gpa=0, mask=2),
        made.context(0, gpa=0x8000, mask=4),
        made.area(),
        made.insert(0x5000, mask=2),
        made.id_block(mask=2, author_enabled=1),
    ]
    data = made.made(headers, bytes(PAGE) + made.vmsa())
    assert codes(data) == []
    assert "igvm-kvm-vmsa-gpa" in codes(data, platform="sev-es")


def test_other_platforms():
    state = made.vmsa(sev_features=0)
    headers = [made.platform(1, made.SEV_ES), made.page(0, 0), made.context(PAGE)]
    assert codes(made.made(headers, bytes(PAGE) + state), platform="sev-es") == []
    assert codes(made.made(headers, bytes(PAGE) + made.vmsa()), platform="sev-es") == [
        "igvm-kvm-sev-features"
    ]
    headers = [made.platform(1, made.SEV), made.page(0, 0)]
    assert codes(made.made(headers, bytes(PAGE)), platform="sev") == []
    headers.append(made.context(0, gpa=0))
    assert codes(made.made(headers, bytes(PAGE)), platform="sev") == ["igvm-kvm-vmsa-sev"]
    with pytest.raises(FormatError) as caught:
        codes(made.linux(1), platform="sev")
    assert caught.value.code == "igvm-platform-absent"


def test_all_are_reported():
    data = made.linux(
        1,
        before=[made.page(0x5000, flags=4), made.error_range(0x6000)],
        after=[made.page(0x9000000), made.page(0x9001000)],
        state=made.vmsa(cr0=0, cr4=0, efer=0, cr2=7, sev_features=0),
    )
    found = igvm_kvm.check(open_(BytesSource(data)))
    assert [item.code.removeprefix("igvm-kvm-") for item in found] == [
        "shared", "header", "vmsa-cr0", "vmsa-cr4", "vmsa-efer", "sev-features", "vmsa-field",
        "order",
    ]  # fmt: skip
    assert found[-1].times == 2
    assert "cr2" in found[6].message
