# SPDX-License-Identifier: Apache-2.0
"""Evidence as the agent makes it below a service module and below a paravisor."""

import hashlib
import struct

import pytest

import made_hcl
import made_report
from made_agent import make_log, running
from model_tpm import OWNER_RW, READ, WRITTEN, ModelTpm
from sev_guest_kernel import FakeReports
from troth.abi import snp_report
from troth.attest import agent as agent_module
from troth.attest.client import AgentClient
from troth.attest.provider_azure import AzureProvider
from troth.attest.provider_tsm import TsmProvider
from troth.documents import evidence
from troth.errors import ProviderError
from troth.verify.kinds import placement

NONCE = bytes(range(32))
EK = (
    struct.pack(">HHIH", 1, 0x0B, 0x000300B2, 32) + bytes(32)
    + struct.pack(">HHHH", 6, 128, 0x43, 0x10) + struct.pack(">HIH", 2048, 0, 256)
    + b"\xc0" * 255 + b"\1"
)  # fmt: skip


def test_below_a_service_module(tmp_path):
    make_log(tmp_path, tpm_kind="svsm")
    provider = TsmProvider(FakeReports(floor=2, manifest=EK))
    with running(tmp_path, provider=provider, vtpm_kind="svsm") as agent:
        found = AgentClient(str(agent.attest)).evidence(NONCE)
    bound = evidence.binding_of(found, ak_name=b"")
    own, report = snp_report.parse(found.service.report), snp_report.parse(found.report)
    assert found.platform_kind == "svsm"
    assert found.service.data == EK
    assert report.report_data == hashlib.sha512(bound + EK).digest()
    assert (report.vmpl, own.vmpl, own.report_data) == (0, 2, bound)
    assert placement.place(found, report, bound, kind="svsm").step.verdict == "pass"


def test_a_service_module_that_the_provider_does_not_reach(tmp_path):
    make_log(tmp_path, tpm_kind="svsm")
    with running(tmp_path, vtpm_kind="svsm") as agent, pytest.raises(ProviderError) as caught:
        AgentClient(str(agent.attest)).evidence(NONCE)
    assert caught.value.code == "agent-refused"
    assert "provider-service" in str(caught.value)


def test_below_a_paravisor(tmp_path):
    make_log(tmp_path, tpm_kind="paravisor")
    indices = {
        0x01400001: [OWNER_RW | WRITTEN, made_hcl.blob(made_hcl.claims())],
        0x01400002: [OWNER_RW | WRITTEN, bytes(64)],
    }
    tpm = ModelTpm(indices)

    def renew(code, index):
        if code == READ and index == 0x01400001:
            indices[index][1] = made_hcl.blob(made_hcl.claims(indices[0x01400002][1]))

    tpm.on = renew
    provider = AzureProvider("/dev/tpmrm0", open_device=lambda _node: tpm)
    with running(tmp_path, provider=provider, vtpm_kind="paravisor") as agent:
        found = AgentClient(str(agent.attest)).evidence(NONCE)
        answer = AgentClient(str(agent.attest)).report(NONCE)
    bound = evidence.binding_of(found, ak_name=b"")
    report = snp_report.parse(found.report)
    body = made_hcl.claims(bound)
    assert found.platform_kind == "azure-paravisor"
    assert found.report == made_report.report(report_data=made_hcl.bound(body))
    assert (found.service.data, found.service.report) == (made_hcl.blob(body), b"")
    assert placement.place(found, report, bound, kind="azure-paravisor").step.verdict == "pass"
    assert answer.service[32:1216] == answer.report


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [("svsm", ("configfs-tsm", "sev-guest")), ("paravisor", ("azure-vtpm",))],
)
def test_the_policy_says_which_way_the_agent_asks(tmp_path, monkeypatch, kind, allowed):
    make_log(tmp_path, tpm_kind=kind)
    asked = []

    def choose(names):
        asked.append(names)
        return TsmProvider(FakeReports(floor=2, manifest=EK))

    monkeypatch.setattr(agent_module, "choose", choose)
    with running(tmp_path, vtpm_kind=kind, by_policy=True) as agent:
        AgentClient(str(agent.attest)).report(NONCE)
    assert asked == [allowed]
