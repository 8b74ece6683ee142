# SPDX-License-Identifier: Apache-2.0
"""A report, a chain without the mark SIMULATED and a policy with every demand, which pass."""

import hashlib
import re
from datetime import UTC, datetime
from functools import cache

import made_pki
from troth.abi import snp_report
from troth.documents import appraisal_policy_toml
from troth.verify.appraise import appraise, judge_chain
from troth.verify.endorsing import endorsements

AT = round(made_pki.NOW.timestamp())
TCB = "{ bootloader = 10, tee = 0, snp = 27, microcode = 84 }"
RAW_TCB = "0a00000000001b54"

#: Guest policy: ABI 1.55, all demands, nothing permitted.
GUEST_POLICY = 55 | 1 << 8 | 1 << 17 | 1 << 20 | 0b11110 << 21 | 0
GUEST_POLICY &= ~(1 << 21)

FIELDS = {
    "version": 5,
    "guest_svn": 7,
    "policy": GUEST_POLICY,
    "family_id": b"\x01" * 16,
    "image_id": b"\x02" * 16,
    "vmpl": 0,
    "platform_info": 0b10111110,
    "key_info": 1,
    "report_data": b"\x03" * 64,
    "measurement": b"\x04" * 48,
    "host_data": b"\x05" * 32,
    "id_key_digest": b"\x06" * 48,
    "author_key_digest": b"\x07" * 48,
    "report_id": b"\x08" * 32,
    "current_major": 1,
    "current_minor": 55,
    "current_build": 50,
    "committed_major": 1,
    "committed_minor": 55,
    "committed_build": 49,
    "launch_mit_vector": 0b111,
    "current_mit_vector": 0b1111,
}

POLICY = f"""\
schema = "troth-verify-policy-v1"
platform = "real"
permissive = false
trusted_roots = ["ROOT"]
deny_products = ["Milan"]
providers = []
chip_ids = ["{made_pki.CHIP.hex()}"]
report_versions = [5]
masked_chip_id = false
reserved_bits = false
any_tcb_order = false
[launch]
measurements = ["{"04" * 48}"]
vmpl = [0]
host_data = ["{"05" * 32}"]
report_ids = ["{"08" * 32}"]
report_id_ma = "unused"
[id_block]
id_keys = [{{ digest = "{"06" * 48}", min_guest_svn = 5 }}]
author_keys = [{{ digest = "{"07" * 48}", min_guest_svn = 6 }}]
family_ids = ["{"01" * 16}"]
image_ids = ["{"02" * 16}"]
min_guest_svn = 7
[guest_policy]
smt = false
migrate_ma = false
cxl_allow = false
single_socket = true
mem_aes_256_xts = true
rapl_dis = true
ciphertext_hiding = true
page_swap_disable = true
min_abi = "1.55"
[platform_info]
smt = false
tsme = true
ecc = true
rapl_disabled = true
ciphertext_hiding = true
alias_check = true
tio = true
unknown_bits = false
[tcb.Genoa]
dated = 2026-05-01
source = "the test"
reported = {TCB}
committed = {TCB}
launch = {TCB}
firmware = "1.55.49"
launch_mitigations = 0b111
current_mitigations = 0b1111
[required]
"""


@cache
def pki(**changes):
    return made_pki.Pki("Genoa", **changes)


@cache
def base_endorsements():
    made = pki()
    return collected(made)


def collected(made, *, revoked=(), without=()):
    """Certificates and list of ``made``, those named in ``without`` left out."""
    files = {"ark": made.ark, "ca": made.ca, "vek": made.vek, "list": made.revoked(*revoked)}
    return endorsements.collect([(n, data) for n, data in files.items() if n not in without])


def policy_text(made=None):
    return POLICY.replace("ROOT", (made or pki()).root_sha256)


def with_line(text, line):
    """``text`` with one line of a policy, written ``[table] key = value``, put in or replaced."""
    found = re.fullmatch(r"(?:\[([^\]]+)\] )?([\w-]+) = (.+)", line)
    assert found, line
    table, key, _value = found.groups()
    line = line.partition("] ")[2] if table else line
    if table is None:
        head, sep, rest = text.partition("\n[")
        return put(head + "\n", key, line) + (sep[1:] + rest if sep else "")
    if f"\n[{table}]\n" not in text:
        return f"{text.rstrip()}\n[{table}]\n{line}\n"
    before, after = text.split(f"\n[{table}]\n")
    body, sep, rest = after.partition("\n[")
    return f"{before}\n[{table}]\n{put(body + chr(10), key, line)}{sep[1:] + rest if sep else ''}"


def put(body, key, line):
    pattern = re.compile(rf"^{re.escape(key)} = .*$", re.MULTILINE)
    if pattern.search(body):
        return pattern.sub(lambda _found: line, body, count=1)
    return f"{body.rstrip()}\n{line}\n"


def judge(report, policy, *, given=None, expected=FIELDS["report_data"], at=AT):
    """The result for the bytes ``report`` under the text ``policy``."""
    parsed = appraisal_policy_toml.parse(policy.encode(), where="policy.toml")
    found = snp_report.parse(report)
    return appraise(
        found,
        judge_chain(found, given or base_endorsements(), parsed, at=at),
        parsed,
        policy_sha256=hashlib.sha256(policy.encode()).hexdigest(),
        expected_report_data=expected,
        at=at,
    )


@cache
def base_report():
    return pki().report(**FIELDS)


def moment(year, month, day):
    return round(datetime(year, month, day, tzinfo=UTC).timestamp())


def turned(result):
    """Codes of the checks that keep ``result`` from passing."""
    return {
        check.code
        for check in result.checks
        if check.verdict == "fail" or (check.required and check.verdict != "pass")
    }
