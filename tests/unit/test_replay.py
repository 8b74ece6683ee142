# SPDX-License-Identifier: Apache-2.0
"""Logs replayed: any bytes, any record, and the case that agrees longest is named."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made_evidence as made
from fuzz import replay as fuzzed
from made_policy import ROOT
from made_policy import policy as made_policy
from troth.documents import event_log_json, policy_json
from troth.errors import FormatError
from troth.measure.boot_events import boot_events
from troth.record import replace
from troth.verify import replay, seen
from troth.verify.seen import Seen

CASES = made.VALUES.cases
TAKES = replace(made.VALUES, instance="optional")


def compared(events=made.BOOT, *, values=TAKES, cases=CASES):
    return replay.compare(replay.replay(made.log(events)), values, cases)


def test_the_sums_by_hand():
    found = replay.replay(made.log())
    assert found.software == made.software()
    assert dict(found.pcrs) == made.pcrs()
    assert found.banks == ("sha256", "sha384")
    assert replay.software_at(found, 3) == made.software(made.BOOT[:3])
    assert replay.replay(b"").software == bytes(48)


def test_a_bank_counts_only_where_every_record_has_it():
    records = [made.record(number, event) for number, event in enumerate(made.BOOT)]
    del records[3]["digests"][0]
    assert replay.replay(made.lines(records)).banks == ("sha384",)


def test_the_first_difference_is_named():
    boot = list(made.BOOT)
    boot[3] = ("verity", 15, b"verity:models:" + b"00" * 32 + b":")
    found = compared(tuple(boot)).difference
    assert found is not None
    assert (found.position, found.kind, found.volume) == (3, "verity", "models")
    assert found.expected == f"verity in PCR 15: verity:models:{'cd' * 32}:"
    assert found.observed == f"verity in PCR 15: verity:models:{'00' * 32}:"
    assert found.place == "record 3, verity of volume models"


def test_the_policy_is_named_by_its_digest():
    boot = (("policy", 14, b"{}"), *made.BOOT[1:])
    found = compared(boot).difference
    assert found is not None
    assert made.VALUES.policy_sha256 in found.expected
    assert hashlib.sha256(b"{}").hexdigest() in found.observed


def test_a_log_that_ends_too_soon():
    for count in range(len(made.BOOT)):
        found = compared(made.BOOT[:count]).difference
        assert found is not None
        assert (found.position, found.kind) == (count, made.BOOT[count][0])
        assert found.observed == "the log ends before it"


def test_the_case_that_agrees_longest_is_the_one_compared_with():
    absent = made.case((("tpm-absent", 14, b"tpm-absent"), *made.BOOT), tpm="absent")
    other = made.case(cmdline=b"other")
    boot = compared((("tpm-absent", 14, b"tpm-absent"), *made.BOOT), cases=(other, *CASES, absent))
    assert boot.case == absent
    spoiled = (*made.BOOT[:5], ("workload", 14, b"no"), *made.BOOT[6:])
    found = compared(spoiled, cases=(other, absent, *CASES)).difference
    assert found is not None
    assert found.kind == "workload"
    nothing = compared(cases=()).difference
    assert nothing is not None
    assert nothing.observed == "none is left"


@pytest.mark.parametrize("place", range(len(made.BOOT) + 1))
@pytest.mark.parametrize("event", [made.INSTANCE_EVENT, ("key-release", 15, b"kbs:///k"),
                                   ("volume-key", 15, b"cryptsetup:data:")])  # fmt: skip
def test_where_events_of_a_launch_may_stand(place, event):
    records = [made.record(n, e) for n, e in enumerate((*made.BOOT[:place], event,
                                                        *made.BOOT[place:]))]  # fmt: skip
    boot = replay.compare(replay.replay(made.lines(records)), TAKES, CASES)
    # Directly behind enter-initrd, which is record 4, and before the workload.
    assert (boot.difference is None) == (place == 5)


@pytest.mark.parametrize(
    "event",
    [("instance", 15, made.INSTANCE), ("instance", 14, b"x" * 31), ("instance", 23, made.INSTANCE),
     ("key-release", 23, b"x"), ("key-release", 14, b"x"), ("volume-key", 7, b"x")],
)  # fmt: skip
def test_events_of_a_launch_in_their_register(event):
    assert compared(made.with_instance(event=event)).difference is not None


def test_instance_once_and_before_keys():
    key = ("key-release", 15, b"kbs:///k")
    both = made.with_instance(made.with_instance(event=key))
    assert compared(both).difference is None
    assert compared(made.with_instance(made.with_instance(), event=key)).difference is not None
    assert compared(made.with_instance(made.with_instance())).difference is not None


def test_a_command_line_that_reads_like_a_phase():
    """An instance event is at home behind the phase, not behind a text that says its name."""
    boot = tuple(
        (kind, pcr, b"enter-initrd" if kind == "cmdline" else content)
        for kind, pcr, content in made.BOOT
    )
    case = made.case(boot, cmdline=b"enter-initrd")
    values = replace(TAKES, cases=(case,))
    assert compared(boot, values=values, cases=(case,)).difference is None
    early = (*boot[:2], made.INSTANCE_EVENT, *boot[2:])
    assert compared(early, values=values, cases=(case,)).difference is not None


def test_strict_readers_refuse_what_cannot_be_recomputed():
    silent = made.record(0, ("policy", 14, b"\x00"))
    del silent["content"]["hex"]
    for record in (silent, made.record(0, made.BOOT[0]) | {"content_type": "systemd"}):
        (found,) = event_log_json.read(made.lines([record]))
        assert found.unverified
        assert found.event.content == b""
        with pytest.raises(FormatError) as caught:
            event_log_json.parse(made.lines([record]))
        assert caught.value.code == "log-content"


@pytest.mark.parametrize("tpm", ["present", "absent", "unused"])
@pytest.mark.parametrize("workload", [None, made.WORKLOAD])
def test_it_expects_what_the_build_predicts(tpm, workload):
    """One table, read by two programs: that of the boot and that of the verifier."""
    volumes = tuple(
        replace(ROOT, name=name, verity=replace(ROOT.verity, root_hash=value))
        for name, value in made.ROOTS
    )
    policy = made_policy(volumes=volumes)
    data = policy_json.print_(policy)
    values = replace(
        made.VALUES,
        policy_sha256=hashlib.sha256(data).hexdigest(),
        workload=workload.hex() if workload else "",
    )
    events = boot_events(
        policy, policy_bytes=data, cmdline=made.CMDLINE, workload=workload,
        tpm_absent=tpm == "absent",
    )  # fmt: skip
    expected = replay.expected_boot(values, made.case(tpm=tpm))
    assert [(item.kind, item.pcr, item.digest) for item in expected] == [
        (event.kind, event.pcr, hashlib.sha256(event.content).digest()) for event in events
    ]


@given(st.binary(max_size=300))
def test_random_logs(data):
    fuzzed.fuzz(data)


@given(st.integers(0, len(fuzzed.SEEDS[0]) - 1), st.binary(max_size=3))
def test_mutated_logs(at, put):
    data = fuzzed.SEEDS[0]
    fuzzed.fuzz(data[:at] + put + data[at + 1 :])


@given(st.lists(st.sampled_from((*made.BOOT, made.INSTANCE_EVENT, made.APPLICATION)), max_size=14))
def test_no_other_sequence_is_a_boot(events):
    fits = compared(tuple(events)).difference is None
    plain = tuple(events[: len(made.BOOT)])
    with_one = tuple(events[: len(made.BOOT) + 1])
    rest = events[len(made.BOOT) :] if plain == made.BOOT else events[len(made.BOOT) + 1 :]
    good = plain == made.BOOT or with_one == made.with_instance()
    assert fits == (good and all(event == made.APPLICATION for event in rest))


# --- what is remembered -------------------------------------------------------------------------

SEEN = Seen(bytes(range(32)), 9, bytes(range(48)))


def test_the_document_of_a_guest():
    data = seen.print_(SEEN)
    assert json.loads(data) == {
        "schema": "troth-seen-v1",
        "report_id": bytes(range(32)).hex(),
        "records": 9,
        "software_register": bytes(range(48)).hex(),
    }
    assert seen.parse(data, report_id=SEEN.report_id) == SEEN
    assert seen.file_name(SEEN.report_id) == f"{bytes(range(32)).hex()}.json"
    with pytest.raises(FormatError) as caught:
        seen.parse(data, report_id=bytes(32))
    assert caught.value.code == "seen-guest"
    for bad in (b"{}", data[:-3], data.replace(b"9", b"-9"), data.replace(b"9", b"100001")):
        with pytest.raises(FormatError):
            seen.parse(bad, report_id=SEEN.report_id)
