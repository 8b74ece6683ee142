# SPDX-License-Identifier: Apache-2.0
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.documents.policy import Fail, Handover, Policy
from troth.errors import Refusal
from troth.record import replace

BAKED = "console=ttyS0 panic=-1 quiet app.mode=a"


@pytest.fixture(scope="module")
def judge():
    # The module of literals exists only inside an initramfs.
    sys.modules.setdefault("troth_baked", types.ModuleType("troth_baked"))
    from troth.boot.policy import judge_cmdline

    return judge_cmdline


POLICY = Policy(
    image_name="demo", svn=1, kernel_release="6.12", snp="none", vtpm="none", vtpm_kind="host",
    owned_pcrs=(11, 14, 15), cmdline=BAKED, cmdline_forms=("plain", "ovmf-direct"),
    cmdline_variable={"app.mode": ("a", "b")}, modules=(), volumes=(), overlay="none",
    overlay_paths=(), workload=(),
    handover=Handover("switch", ("/sbin/init",), "none", 0, 0, 5),
    fail=Fail("poweroff", "public", 60, 10), lockdown="integrity", modules_disabled=False,
    acpi_aml="unprotected",
)  # fmt: skip


@pytest.mark.parametrize(
    "text", [BAKED, BAKED + " initrd=initrd", BAKED.replace("=a", "=b"),
             BAKED.replace("=a", "=b") + " initrd=initrd"]
)  # fmt: skip
def test_accepted(judge, text: str) -> None:
    judge(POLICY, text.encode())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (BAKED + " single", "cmdline-unlisted"),
        (BAKED + " rdinit=/x", "cmdline-unlisted"),
        (BAKED + " PYTHONPATH=/x", "cmdline-environment"),
        (BAKED + " LD_PRELOAD=/x", "cmdline-environment"),
        (BAKED + " quiet", "cmdline-repeated"),
        (BAKED + " app.mode=b", "cmdline-repeated"),
        (BAKED.replace("=a", "=c"), "cmdline-value"),
        (BAKED.replace("panic=-1", "panic=0"), "cmdline-differs"),
        (BAKED.replace("quiet ", ""), "cmdline-differs"),
        (BAKED.replace(" quiet", "  quiet"), "cmdline-unlisted"),
        ("panic=-1 console=ttyS0 quiet app.mode=a", "cmdline-differs"),
        (BAKED + " initrd=initrd initrd=initrd", "cmdline-unlisted"),
        (BAKED + " initrd=other", "cmdline-unlisted"),
    ],
)
def test_refused(judge, text: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        judge(POLICY, text.encode())
    assert caught.value.code == code


def test_ovmf_word_needs_the_form(judge) -> None:
    with pytest.raises(Refusal):
        judge(replace(POLICY, cmdline_forms=("plain",)), (BAKED + " initrd=initrd").encode())


@given(st.binary(max_size=80))
def test_only_the_listed_texts_pass(data: bytes) -> None:
    sys.modules.setdefault("troth_baked", types.ModuleType("troth_baked"))
    from troth.boot.policy import judge_cmdline

    try:
        judge_cmdline(POLICY, data)
    except Refusal:
        return
    assert data.removesuffix(b" initrd=initrd") in {
        BAKED.encode(), BAKED.replace("=a", "=b").encode()
    }  # fmt: skip
