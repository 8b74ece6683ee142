# SPDX-License-Identifier: Apache-2.0
"""VMSA pages and reset states: dumped pages, and the layout another program has."""

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sevsnpmeasure.vcpu_types import CPU_SIGS, cpu_sig
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA, SevEsSaveArea

from troth.abi import vmsa
from troth.abi.vmsa import Segment
from troth.errors import FormatError, UsageError
from troth.measure import vcpu

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/vmsa")


@pytest.mark.vectors
@pytest.mark.parametrize(("which", "eip"), [("bsp", 0xFFFFFFF0), ("ap", 0x0080B004)])
def test_dumped_pages(which, eip):
    if not VECTORS.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    page = (VECTORS / f"qemu_epyc-v4_{which}_feat1.bin").read_bytes()
    made = vcpu.reset_vmsa(eip, signature=0x800F12, features=1, bsp=which == "bsp")
    assert made == page
    values = vmsa.decode(page)
    assert values["cs"] == Segment(0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)
    assert (values["rip"], values["rdx"], values["mxcsr"]) == (eip & 0xFFFF, 0x800F12, 0x1F80)
    assert vmsa.encode(values) == page
    assert vmsa.first_reserved(page) is None


def test_fields_are_where_another_program_has_them():
    theirs = {
        name: (getattr(SevEsSaveArea, name).offset, ctypes.sizeof(kind))
        for name, kind in SevEsSaveArea._fields_
        if not name.startswith(("reserved", "manual"))
    }
    # Linux keeps SPEC_CTRL where they see reserved bytes.
    assert {**theirs, "spec_ctrl": (0x2E0, 8)} == vmsa.FIELDS


def test_fields_ascend_and_do_not_overlap():
    end = 0
    for offset, size_bytes in vmsa.FIELDS.values():
        assert offset >= end
        end = offset + size_bytes
    assert end == 0x670


@pytest.mark.parametrize("vmm", vcpu.VMMS)
@pytest.mark.parametrize("features", [0, 1, 0x21, 0x29, 2**64 - 1])
@pytest.mark.parametrize("eip", [0, 0x80B004, 0x12345678, 0xFFFF0000])
def test_reset_states_as_sev_snp_measure_has_them(vmm, features, eip):
    theirs = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}[vmm]
    for signature in (0, 0xB00F00, 2**32 - 1):
        for bsp, at in ((True, vcpu.BSP_EIP), (False, eip)):
            page = vcpu.reset_vmsa(at, vmm=vmm, signature=signature, features=features, bsp=bsp)
            assert page == bytes(VMSA.build_save_area(at, features, signature, theirs))


def test_virtee_has_another_rdx_on_ec2_only():
    for vmm in vcpu.VMMS:
        ours = vcpu.reset_vmsa(0xFFFFFFF0, vmm=vmm, signature=5, features=1, bsp=True)
        other = vcpu.reset_vmsa(
            0xFFFFFFF0, vmm=vmm, signature=5, features=1, bsp=True, compat="virtee-sev"
        )
        changed = {
            name: value
            for name, value in vmsa.decode(other).items()
            if value != vmsa.decode(ours)[name]
        }
        assert changed == ({"rdx": 0} if vmm == "ec2" else {})


def test_every_processor_type_of_sev_snp_measure():
    assert vcpu.SIGNATURES == CPU_SIGS


@given(st.integers(0, 270), st.integers(0, 255), st.integers(0, 15))
def test_signatures(family, model, stepping):
    assert vcpu.signature(family, model, stepping) == cpu_sig(family, model, stepping)


@pytest.mark.parametrize(
    "numbers", [(271, 0, 0), (-1, 0, 0), (23, 256, 0), (23, -1, 0), (23, 1, 16), (23, 1, -1)]
)
def test_signatures_out_of_range(numbers):
    with pytest.raises(UsageError) as caught:
        vcpu.signature(*numbers)
    assert caught.value.code == "vcpu-signature"


@pytest.mark.parametrize(("vmm", "compat"), [("krun", "virtee-sev"), ("qemu", "nobody")])
def test_unknown_monitors_and_peers(vmm, compat):
    with pytest.raises(UsageError) as caught:
        vcpu.reset_vmsa(0, vmm=vmm, signature=0, features=0, compat=compat, bsp=True)
    assert caught.value.code == "vcpu-vmm"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"eflags": 2}, "vmsa-field"),
        ({"reserved_0xc8": 1}, "vmsa-field"),
        ({"rip": 1 << 64}, "vmsa-value"),
        ({"rip": -1}, "vmsa-value"),
        ({"cpl": 256}, "vmsa-value"),
        ({"rip": Segment()}, "vmsa-value"),
        ({"cs": 8}, "vmsa-value"),
        ({"cs": Segment(selector=1 << 16)}, "vmsa-value"),
        ({"cs": Segment(limit=-1)}, "vmsa-value"),
        ({"cs": Segment(base=1 << 64)}, "vmsa-value"),
    ],
)
def test_values_that_do_not_fit(values, code):
    with pytest.raises(FormatError) as caught:
        vmsa.encode(values)
    assert caught.value.code == code


@pytest.mark.parametrize("size", [0, 4095, 4097])
@pytest.mark.parametrize("reader", [vmsa.decode, vmsa.first_reserved])
def test_pages_of_another_size(reader, size):
    with pytest.raises(FormatError) as caught:
        reader(bytes(size))
    assert caught.value.code == "vmsa-size"


@pytest.mark.parametrize("offset", [0xC8, 0xCC, 0xD8, 0x1C0, 0x248, 0x2F0, 0x320, 0x3F0, 4095])
def test_reserved_bytes_are_found(offset):
    page = bytearray(vmsa.encode({"rip": 2**64 - 1, "fpreg_ymm": 2**2048 - 1}))
    page[offset] = 1
    assert vmsa.first_reserved(bytes(page)) == offset


VALUES = {
    name: st.integers(0, 256**size - 1)
    if name not in vmsa.SEGMENTS
    else st.builds(
        Segment,
        selector=st.integers(0, 2**16 - 1),
        attributes=st.integers(0, 2**16 - 1),
        limit=st.integers(0, 2**32 - 1),
        base=st.integers(0, 2**64 - 1),
    )
    for name, (_, size) in vmsa.FIELDS.items()
}


@settings(max_examples=40)
@given(st.data())
def test_round_trip(data):
    names = data.draw(st.sets(st.sampled_from(sorted(VALUES))))
    values = {name: data.draw(VALUES[name]) for name in sorted(names)}
    page = vmsa.encode(values)
    read = vmsa.decode(page)
    assert {name: read[name] for name in values} == values
    assert all(read[name] in (0, Segment()) for name in set(read) - names)
    assert vmsa.first_reserved(page) is None
