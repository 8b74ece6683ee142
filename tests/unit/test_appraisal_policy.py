# SPDX-License-Identifier: Apache-2.0
"""The verification policy: what it means, what it refuses and where, what init-policy writes."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.abi.snp_tcb import Tcb
from troth.cli import verify_policy
from troth.documents import appraisal_policy, appraisal_policy_toml, check_names, tcb_floors
from troth.documents.appraisal_policy import AppraisalPolicy, KeyPin, OneOf
from troth.errors import UsageError
from troth.verify.policy_text import policy_text

SMALLEST = 'schema = "troth-verify-policy-v1"\nplatform = "real"\n'
STRICT = policy_text(permissive=False, simulated=False, unprotected_acpi=False)
KEYS_BUT_REQUIRED = {
    name: keys for name, keys in appraisal_policy_toml.KEYS.items() if name != "required"
}
FLOOR = "[tcb.Milan]\nsource='x'\ndated=2026-01-01\n"
A, B, ZERO = "aa" * 48, "bb" * 48, "00" * 48


def read(text: str) -> AppraisalPolicy:
    return appraisal_policy_toml.parse(text.encode(), where="policy.toml")


def refused(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(text)
    assert caught.value.exit_status == 2
    return caught.value


def test_what_is_not_said_is_strict():
    policy = read(SMALLEST)
    assert policy == AppraisalPolicy()
    assert policy.deny_products == ("Milan",)
    assert policy.launch.measurements == ()
    assert policy.launch.vmpl == ()
    assert policy.launch.host_data is None
    assert policy.launch.report_id_ma == OneOf(unused=True, values=())
    assert policy.guest_policy.permitted == ()
    assert policy.id_block.id_keys == ()
    assert not policy.reference.allow_unsigned
    assert "unprotected" not in policy.reference.acpi_aml
    for check in check_names.CHECKS:
        assert policy.requires(check.name, evidence=True) == (check.needed != "wanted"), check.name
        if check.group == check_names.EVIDENCE:
            assert not policy.requires(check.name), "of a report alone"
    for name in ("measurement", "report-data", "vmpl", "host-data", "tcb-reported", "guest-debug"):
        assert policy.requires(name)


def test_all_keys_and_what_they_say():
    policy = read(
        SMALLEST.replace("real", "simulated")
        + f"""
permissive = true
trusted_roots = ["{"0A" * 32}"]
deny_products = []
report_versions = [3, 5]
masked_chip_id = true
reserved_bits = true
any_tcb_order = true
[tcb.Turin]
dated = 2026-10-08
source = "AMD-SB-0"
reported = {{ fmc = 1, bootloader = 2, tee = 3, snp = 4, microcode = 255 }}
firmware = "1.58.2"
launch_mitigations = 0x8000000000000000
[tcb."Milan-X"]
dated = 2026-01-02
source = "x"
committed = {{ bootloader = 2, tee = 3, snp = 4, microcode = 5 }}
[platform_info]
alias_check = true
tio = false
unknown_bits = true
[guest_policy]
smt = true
cxl_allow = false
rapl_dis = true
min_abi = "1.55"
[launch]
measurements = ["{A}", "{B}"]
vmpl = [2, 0]
host_data = ["{"cc" * 32}"]
report_ids = ["{"dd" * 32}"]
report_id_ma = ["{"ee" * 32}"]
[id_block]
id_keys = [{{ digest = "{A}", min_guest_svn = 7 }}]
author_keys = [{{ digest = "{B}", min_guest_svn = 0 }}]
family_ids = "unused"
image_ids = ["{"01" * 16}"]
min_guest_svn = 4294967295
[reference]
keys = ["{"02" * 32}"]
allow_unsigned = true
min_svn = 3
acpi_aml = ["off"]
[required]
measurement = false
platform-tsme = true
"""
    )
    assert policy.platform == "simulated"
    assert policy.trusted_roots == (b"\x0a" * 32,)
    assert policy.report_versions == (3, 5)
    assert policy.tcb["Turin"] == tcb_floors.Floor(
        date(2026, 10, 8), "AMD-SB-0", Tcb(1, 2, 3, 4, 255), None, None, (1, 58, 2), 1 << 63, 0
    )
    assert policy.tcb["Milan-X"].committed == Tcb(None, 2, 3, 4, 5)
    assert policy.platform_info.demanded == (("alias_check", True), ("tio", False))
    assert policy.guest_policy.permitted == ("smt",)
    assert policy.guest_policy.demanded == ("rapl_dis",)
    assert policy.guest_policy.min_abi == (1, 55)
    assert policy.launch.measurements == (b"\xaa" * 48, b"\xbb" * 48)
    assert policy.launch.vmpl == (2, 0)
    assert policy.launch.host_data == OneOf(unused=False, values=(b"\xcc" * 32,))
    assert policy.id_block.id_keys == (KeyPin(b"\xaa" * 48, 7),)
    assert policy.reference.acpi_aml == ("off",)
    assert not policy.requires("measurement")
    assert not policy.requires("guest-debug"), "permissive"
    assert policy.requires("signing-key")


def test_required_can_waive_and_ask_for_more():
    policy = read(SMALLEST + "[required]\nmeasurement = false\nplatform-tsme = true\n")
    assert not policy.requires("measurement")
    assert policy.requires("platform-tsme")


@pytest.mark.parametrize(
    ("line", "code", "at", "hint"),
    [
        ("= 1", "syntax", 3, ""),
        ("a = 1", "unknown-key", 3, "valid"),
        ("deny_product = []", "unknown-key", 3, "deny_products"),
        ("[launch]\nmeasurement = []", "unknown-key", 4, "measurements"),
        ("[guest_policy]\ndebug = true", "unknown-key", 4, ""),
        ("[tcb.Milna]\n", "unknown-key", 3, "Milan"),
        ("[required]\nguest-debug = false", "unknown-key", 4, ""),
        ("[required]\nsigning-key = false", "unknown-key", 4, ""),
        ("[required]\ncheck = false", "unknown-key", 4, ""),
        ("permissive = 1", "type", 3, ""),
        ("trusted_roots = ['aa']", "value", 3, ""),
        ("trusted_roots = [1]", "type", 3, ""),
        (f"trusted_roots = ['{'ab' * 32}',\n '{'AB' * 32}']", "value", 4, ""),
        ("deny_products = ['Mialn']", "value", 3, "Milan"),
        ("report_versions = [1]", "value", 3, ""),
        ("report_versions = []", "value", 3, ""),
        ("report_versions = [true]", "type", 3, ""),
        ("[launch]\nvmpl = 0", "type", 4, ""),
        ("[launch]\nvmpl = [4]", "value", 4, ""),
        ("[launch]\nvmpl = [0, 0]", "value", 4, ""),
        ("[launch]\nhost_data = []", "value", 4, ""),
        ("[launch]\nhost_data = 'any'", "value", 4, "unused"),
        (f"[launch]\nmeasurements = ['{A}', '{A}']", "value", 4, ""),
        ("[id_block]\nmin_guest_svn = -1", "value", 4, ""),
        (f"[id_block]\nid_keys = ['{A}']", "type", 4, ""),
        (f"[id_block]\nid_keys = [{{ digest = '{A}' }}]", "missing-key", 4, ""),
        ("[id_block]\nid_keys = [{ min_guest_svn = 1 }]", "missing-key", 4, ""),
        (
            f"[id_block]\nid_keys = [{{ digest = '{'00' * 48}', min_guest_svn = 1 }}]",
            "value",
            4,
            "",
        ),
        ("[tcb.Milan]\ndated = 2026-01-01", "missing-key", 3, ""),
        ("[tcb.Milan]\nsource = 'x'", "missing-key", 3, ""),
        ("[tcb.Milan]\nsource = 'x'\ndated = '2026-01-01'", "type", 5, ""),
        ("[tcb.Milan]\nsource = 'x'\ndated = 2026-01-01T00:00:00Z", "type", 5, ""),
        ("[tcb.Milan]\nsource='x'\ndated=2026-01-01\nreported={snp = 1}", "missing-key", 6, ""),
        ("[tcb.Milan]\nsource='x'\ndated=2026-01-01\nreported={fmc = 1}", "unknown-key", 6, ""),
        ("[tcb.Milan]\nsource='x'\ndated=2026-01-01\nfirmware='1.55'", "value", 6, ""),
        ("[tcb.Milan]\nsource='x'\ndated=2026-01-01\nfirmware='1.55.256'", "value", 6, ""),
        (
            FLOOR + "reported={bootloader = 0, tee = 0, snp = 256, microcode = 0}",
            "value",
            6,
            "",
        ),
        ("[guest_policy]\nmin_abi = '1.55.3'", "value", 4, ""),
        ("[guest_policy]\nsmt = 'yes'", "type", 4, ""),
        ("[reference]\nacpi_aml = ['none']", "value", 4, ""),
        ("[reference]\nkeys = ['SHA256:ab']", "value", 4, ""),
    ],
)
def test_refusals_name_line_and_nearest(line, code, at, hint):
    error = refused(SMALLEST + line + "\n")
    assert error.code == f"verify-policy-{code}"
    assert error.where == f"policy.toml:{at}"
    assert hint in error.hint


def test_schema_and_platform_must_be_there():
    assert refused("platform = 'real'").code == "verify-policy-missing-key"
    assert refused(SMALLEST.replace("v1", "v2")).code == "verify-policy-value"
    assert refused(SMALLEST.splitlines()[0]).code == "verify-policy-missing-key"
    assert refused(SMALLEST.replace("real", "any")).code == "verify-policy-value"
    simulated = refused(SMALLEST.replace("real", "simulated"))
    assert (simulated.code, "root" in simulated.message) == ("verify-policy-value", True)
    assert refused("\xff").code == "verify-policy-syntax"
    assert refused("#" * (257 << 10)).code == "verify-policy-syntax"


@given(st.integers(0, len(STRICT) - 1), st.sampled_from(["", "\0", "]", '"', "=", "9", "\n"]))
def test_a_changed_policy_is_refused_or_read(at, put):
    try:
        read(STRICT[:at] + put + STRICT[at + 1 :])
    except UsageError as error:
        assert error.code.startswith("verify-policy-")


# --- what init-policy writes ----------------------------------------------------------------


def test_the_written_policy_is_strict():
    policy = read(STRICT)
    smallest = read(SMALLEST)
    assert not policy.permissive
    assert policy.deny_products == ("Milan",)
    assert policy.required == {}
    assert policy.guest_policy == smallest.guest_policy
    assert policy.reference == smallest.reference
    assert policy.launch.measurements == ()
    assert dict(policy.platform_info.demanded) == {"alias_check": True, "smt": False}
    assert dict(policy.tcb) == tcb_floors.FLOORS
    for floor in policy.tcb.values():
        assert floor.source
        assert floor.reported == floor.committed == floor.launch
    # AMD-SB-3019 as microsoft/CCF quotes it: no floor of a silicon's line is below.
    assert policy.tcb["Milan"].reported.snp >= 0x18
    assert policy.tcb["Genoa"].reported.snp >= 0x17
    assert policy.tcb["Milan"].reported.microcode >= 0xDB
    assert policy.tcb["Genoa"].reported.microcode >= 0x54


def test_every_key_stands_in_the_written_policy():
    """Those with no value in it stand in a comment."""
    tree = tomllib.loads(STRICT)
    for table, keys in appraisal_policy_toml.KEYS.items():
        if table == "required":
            continue
        own = tree if not table else tree["tcb"]["Genoa"] if table == "tcb.*" else tree[table]
        for key in keys:
            assert key in own or f"# {key} = " in STRICT or f"{key} = 0x" in STRICT, (table, key)


def test_every_key_stands_on_the_page():
    page = Path(__file__).parents[2] / "docs/formats.md"
    text = page.read_text("utf-8").partition("## Verification policy")[2].partition("\n## ")[0]
    found, table = {"": []}, ""
    for line in text.splitlines():
        if line.startswith("`["):
            table = line.partition("]")[0].removeprefix("`[").replace("tcb.KIND", "tcb.*")
            found[table] = []
        if line.startswith("| `"):
            found[table] += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    del found["required"]
    assert found == {name: list(keys) for name, keys in KEYS_BUT_REQUIRED.items()}
    for name in (*tcb_floors.SILICON, *appraisal_policy.ACPI_AML):
        assert f"`{name}`" in text


ROOMS = ("appraise.py", "evidence.py", "kinds/foreign.py")


def test_warnings_are_on_the_page():
    page = Path(__file__).parents[2]
    written = re.findall(
        r"^\| \*([a-z-]+)\* \|", (page / "docs/checks.md").read_text(), re.MULTILINE
    )
    rooms = [page / "agent/troth/verify" / name for name in ROOMS]
    source = "".join(path.read_text("utf-8") for path in rooms)
    assert sorted(written) == sorted(re.findall(r'Notice\(\s*"([a-z-]+)"', source))


def test_permissive_simulated_and_acpi():
    permissive = read(policy_text(permissive=True, simulated=False, unprotected_acpi=False))
    assert permissive.permissive
    assert permissive.platform == "real"
    assert not permissive.requires("measurement")
    text = policy_text(permissive=False, simulated=True, unprotected_acpi=True)
    assert "trusted_roots" in refused(text).message
    policy = read(text.replace("trusted_roots = []", f'trusted_roots = ["{"ab" * 32}"]'))
    assert policy.platform == "simulated"
    assert "unprotected" in policy.reference.acpi_aml


def options(path, **given):
    defaults = {"permissive": False, "simulated": False, "accept_unprotected_acpi": False}
    return SimpleNamespace(output=str(path), **(defaults | given))


def test_a_policy_that_is_there_is_left_alone(tmp_path, capsys):
    path = tmp_path / "policy.toml"
    assert verify_policy.init_policy(options(path)) == 0
    assert path.read_text() == STRICT
    assert "measurements" in capsys.readouterr().out
    with pytest.raises(UsageError) as caught:
        verify_policy.init_policy(options(path, permissive=True))
    assert caught.value.code == "verify-policy-exists"
    assert path.read_text() == STRICT
    with pytest.raises(UsageError) as caught:
        verify_policy.init_policy(options(tmp_path / "no" / "policy.toml"))
    assert caught.value.code == "verify-policy-file"


@pytest.mark.parametrize(
    ("product", "model", "stepping", "silicon"),
    [
        ("Milan", 0x01, 1, "Milan"),
        ("Milan", 0x01, 2, "Milan-X"),
        ("Milan", 0, 0, "Milan"),
        ("Genoa", 0x11, 1, "Genoa"),
        ("Genoa", 0x11, 2, "Genoa-X"),
        ("Genoa", 0xA0, 2, "Bergamo"),
        ("Genoa", 0xA0, 1, "Bergamo"),
        ("Turin", 0x02, 1, "Turin"),
        ("Turin", 0x11, 0, "Turin-Dense"),
        ("Venice", 0x50, 0, "Venice"),
    ],
)
def test_silicon(product, model, stepping, silicon):
    assert tcb_floors.silicon_of(product, model, stepping) == silicon
    assert tcb_floors.SILICON[silicon] == product
