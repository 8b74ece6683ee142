# SPDX-License-Identifier: Apache-2.0
"""Logs and registers of evidence: order, digests, and what they explain."""

from __future__ import annotations

import hashlib

import pytest

import made_evidence as made
from judged_evidence import judge
from made_appraisal import turned
from troth.record import replace

# --- the log ------------------------------------------------------------------------------------


def of_records(records, events=made.BOOT, **changes):
    """A document whose log is these records, and whose registers are those of ``events``."""
    data = made.lines(records)
    return made.document(events, event_log=made.b64(data), log_records=data.count(b"\n"), **changes)


def records(events=made.BOOT):
    return [made.record(number, event) for number, event in enumerate(events)]


def without(place):
    return (*made.BOOT[:place], *made.BOOT[place + 1 :])


def swapped(place):
    boot = list(made.BOOT)
    boot[place], boot[place + 1] = boot[place + 1], boot[place]
    return tuple(boot)


@pytest.mark.parametrize("place", range(len(made.BOOT)))
def test_each_event_once_and_in_order(place):
    for events in (without(place), (*made.BOOT[:place], made.BOOT[place], *made.BOOT[place:])):
        found = judge(made.document(events))
        assert "boot-events" in turned(found), (place, len(events))
        assert found.check("boot-events").expected.startswith("record ")
    if place < len(made.BOOT) - 1:
        assert "boot-events" in turned(judge(made.document(swapped(place))))
    kind, pcr, content = made.BOOT[place]
    moved = (*made.BOOT[:place], (kind, (pcr + 1) % 24, content), *made.BOOT[place + 1 :])
    assert "boot-events" in turned(judge(made.document(moved)))
    resettable = (*made.BOOT[:place], (kind, 23, content), *made.BOOT[place + 1 :])
    assert "boot-events" in turned(judge(made.document(resettable)))
    changed = (*made.BOOT[:place], (kind, pcr, content + b"x"), *made.BOOT[place + 1 :])
    found = judge(made.document(changed))
    assert "boot-events" in turned(found)
    assert found.check("boot-events").expected.startswith(f"record {place}, {kind}")


@pytest.mark.parametrize("event", [*made.BOOT, ("refused", 14, b"refused:x"), ("odd", 14, b"x"),
                                   ("odd", 11, b"x"), made.INSTANCE_EVENT,
                                   ("key-release", 15, b"x")])  # fmt: skip
def test_no_boot_event_behind_the_caps(event):
    found = judge(made.document((*made.BOOT, event)))
    assert "boot-events" in turned(found)
    assert found.check("boot-events").expected.startswith(f"record {len(made.BOOT)}, {event[0]}")


def test_events_of_applications_come_behind_the_boot():
    events = (*made.BOOT, made.APPLICATION, ("agent-restarted", 23, b"events=11"))
    found = judge(made.document(events))
    assert found.overall == "pass"
    assert "runtime-events" in {item.name for item in found.warnings}
    assert "boot-events" in turned(judge(made.document((made.APPLICATION, *made.BOOT))))


def test_a_workload_that_was_changed_is_named():
    boot = tuple(
        (kind, pcr, bytes(32) if kind == "workload" else content)
        for kind, pcr, content in made.BOOT
    )
    found = judge(made.document(boot))
    assert turned(found) == {"boot-events"}
    check = found.check("boot-events")
    assert check.expected == f"record 5, workload: workload in PCR 14: {made.WORKLOAD.hex()}"
    assert check.observed == f"first difference: workload in PCR 14: {'00' * 32}"


def test_a_refused_boot():
    cut = (*made.BOOT[:5], ("refused", 14, b"refused:verity-data"), *made.BOOT[6:])
    found = judge(made.document(cut))
    assert turned(found) == {"boot-events"}
    assert "refused:verity-data" in found.check("boot-events").observed


def test_a_digest_that_is_not_of_the_content():
    spoiled = records()
    spoiled[5]["digests"][0]["digest"] = "00" * 32
    found = judge(of_records(spoiled))
    assert {"event-log", "boot-events", "root-hash"} <= turned(found)
    assert "log-digest" in found.check("event-log").observed
    # In the last of the banks too.
    spoiled = records()
    spoiled[5]["digests"][1]["digest"] = "00" * 48
    assert "event-log" in turned(judge(of_records(spoiled)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: [found[0] | {"recnum": 1}, *found[1:]],
        lambda found: found[1:],
        lambda found: [found[0] | {"extra": 1}, *found[1:]],
        lambda found: [found[0] | {"pcr": 24}, *found[1:]],
    ],
)
def test_logs_that_cannot_be_read(spoil):
    assert "event-log" in turned(judge(of_records(spoil(records()))))


def test_records_with_digests_only_say_nothing():
    """The digest is right; that it is of the expected content is nobody's word but the log's."""
    silent = records()
    del silent[5]["content"]["hex"]
    found = judge(of_records(silent))
    assert {"boot-events"} <= turned(found)
    assert "unverified" in found.check("boot-events").observed
    silent = records()
    silent[0]["content_type"] = "systemd"
    found = judge(of_records(silent))
    assert {"boot-events", "root-hash", "raw-report-data"} <= turned(found)


def test_foreign_records_count_for_the_sums():
    digest = {"hashAlg": "sha256", "digest": "77" * 32}
    foreign = {
        "recnum": len(made.BOOT), "pcr": 7, "digests": [digest],
        "content_type": "pcclient_std", "content": {"event_data": "policy"},
    }  # fmt: skip
    behind = of_records([*records(), foreign])
    found = judge(behind)
    assert turned(found) == {"registers"}, "the software register has one event more"
    assert "log-unverified" in {item.name for item in found.warnings}
    inside = [*records()[:4], foreign | {"recnum": 4}]
    inside += [item | {"recnum": item["recnum"] + 1} for item in records()[4:]]
    assert "boot-events" in turned(judge(of_records(inside)))


def test_a_volume_key_is_keyed_and_unverified():
    """systemd's HMAC event: its place is checked, its digests are taken, its text is not read."""
    boot = made.with_instance(event=("volume-key", 15, b"cryptsetup:data:uuid"))
    keyed = records(boot)
    at = next(n for n, item in enumerate(keyed) if item["content"]["type"] == "volume-key")
    for item in keyed[at]["digests"]:
        item["digest"] = "99" * (len(item["digest"]) // 2)
    found = judge(of_records(keyed, boot))
    assert found.overall == "pass"
    assert "log-unverified" in {item.name for item in found.warnings}


@pytest.mark.parametrize("banks", [("sha1",), ()])
def test_records_without_a_strong_digest(banks):
    """The contents are right; that they were measured is nobody's word."""
    found = judge(made.document(event_log=made.b64(made.log(banks=banks))))
    assert turned(found) == {"event-log"}
    one = records()
    one[7]["digests"] = [{"hashAlg": "sha1", "digest": hashlib.sha1(made.BOOT[7][2]).hexdigest()}]
    found = judge(of_records(one))
    assert turned(found) == {"event-log"}
    assert "record 7 has no such digest" in found.check("event-log").observed


# --- registers ----------------------------------------------------------------------------------

PRESENT = replace(made.VALUES, cases=(made.case(tpm="present"),))


def test_registers_of_a_tpm_are_compared():
    data = made.document(tpm_registers=True)
    assert judge(data, values=PRESENT).overall == "pass"
    tree = made.tree(tpm_registers=True)
    for place, item in enumerate(tree["registers"]):
        changed = list(tree["registers"])
        changed[place] = item | {"value": "00" * (len(item["value"]) // 2)}
        found = judge(made.document(registers=changed), values=PRESENT)
        assert turned(found) == {"registers"}, item["name"]
        assert item["name"] in found.check("registers").observed


def test_a_bank_of_sha_1_is_no_evidence():
    values = made.pcrs(banks=("sha1",))
    listed = [{"name": f"sha1:{n}", "value": v.hex()} for (_bank, n), v in sorted(values.items())]
    listed.sort(key=lambda item: item["name"])
    listed.append({"name": "software", "value": made.software().hex()})
    found = judge(made.document(registers=listed), values=PRESENT)
    assert turned(found) == {"registers"}
    assert "no bank of SHA-256 or better" in found.check("registers").observed


@pytest.mark.parametrize(
    "register",
    [
        {"name": "sha256:23", "value": "01" * 32},
        {"name": "mr-td", "value": "00" * 48},
        {"name": "sha256:99", "value": "00" * 32},
    ],
)
def test_registers_that_the_log_does_not_explain(register):
    own = {"name": "software", "value": made.software().hex()}
    listed = sorted([own, register], key=lambda item: item["name"])
    assert turned(judge(made.document(registers=listed))) == {"registers"}
    assert turned(judge(made.document(registers=[]))) == {"registers"}
