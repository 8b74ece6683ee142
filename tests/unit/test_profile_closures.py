# SPDX-License-Identifier: Apache-2.0
"""What each profile imports and packs, against committed lists.

An import that slips into PID 1 costs every boot, so it must show in a review.
``import NAME``: in sys.modules once PID 1 and all stages are imported.
``pack NAME``: packed besides, for lazy imports and the guest's verbs.

After an intended change: TROTH_WRITE_PROFILES=1 pytest tests/unit/test_profile_closures.py
"""

import os
from pathlib import Path

import pytest

from made_policy import INSTANCE, NETWORK, policy
from made_volumes import BROKER, VOLUME
from troth.documents import stages
from troth.documents.policy import Attest
from troth.image.inputs import interpreter as python
from troth.image.packing import initramfs, package, profile, python_closure
from troth.record import replace

LISTS = Path(__file__).parent / "data"
#: The lists are those of Debian 12's interpreter; another one freezes other modules.
VERSION = "3.11"


def sealed(**changes):
    """A policy with one encrypted volume, whose key is packed unless ``changes`` say else."""
    volume = replace(VOLUME, **({"key": "file:data", "blank": "format"} | changes))
    return replace(policy(overlay="none", snp="simulated"), encrypted=(volume,))


def asking(key="kbs:///default/disk-key/data"):
    """A policy whose key a broker releases."""
    made = sealed(key=key, blank="refuse")
    return replace(made, brokers=(replace(BROKER, trust_domain="example.org"),), network=NETWORK)


POLICIES = {
    "base": policy(volumes=(), overlay="none", kind="supervise"),
    "verity": policy(overlay="none"),
    "overlay": policy(overlay="tmpfs", workload=("/opt/app",)),
    "snp": policy(overlay="none", snp="required"),
    "simulated": policy(overlay="none", snp="simulated"),
    "instance": policy(overlay="none", snp="required", instance=INSTANCE),
    "network": replace(policy(overlay="none"), network=NETWORK),
    "volumes": sealed(),
    "volumes-luks2": sealed(format="luks2", blank="refuse"),
    "keys-snp": sealed(key="snp:"),
    "keys-broker": asking(),
    "keys-spiffe": asking(key="spiffe://example.org/vm/shop"),
    "quote": replace(policy(overlay="none", snp="simulated"), attest=Attest(quote=True)),
}
#: Each costs a boot more than all its mounts; a short-lived worker may use them, PID 1 not.
NEVER_IN_PID1 = {
    "re", "enum", "typing", "dataclasses", "json", "pathlib", "logging", "argparse", "subprocess",
    "hashlib", "_hashlib", "ctypes", "socket", "threading", "asyncio", "inspect", "collections",
}  # fmt: skip


@pytest.fixture(scope="module")
def target():
    if not python.DEFAULT.exists():
        pytest.skip(f"{python.DEFAULT} is not installed")
    found = python.identify()
    if found.version != VERSION:
        pytest.skip(f"the lists are of CPython {VERSION}, this is {found.version}")
    return found


def imported(target, wanted):
    words = dict.fromkeys([initramfs.PID1, *(module for _, module in stages.stages_of(wanted))])
    loaded = python.trace(
        target, python_closure.package_root(), list(words), made=(python_closure.TWIN,)
    )
    return {module.name for module in loaded}


@pytest.mark.parametrize("name", list(POLICIES))
def test_closure_is_the_committed_one(target, name):
    wanted = POLICIES[name]
    chosen = profile.profiles_of(wanted)
    assert name in [item.name for item in chosen]
    eager = imported(target, wanted)
    closure = python_closure.close(
        target,
        initramfs.entry_modules(wanted, chosen),
        packages=package.of_profiles(chosen),
    )
    packed = {module.name for module in closure.modules} - eager
    lines = [f"import {module}" for module in sorted(eager)]
    lines += [f"pack {module}" for module in sorted(packed)]
    path = LISTS / f"profile-{name}.txt"
    if os.environ.get("TROTH_WRITE_PROFILES") == "1":
        path.write_text("\n".join(lines) + "\n")
    assert lines == path.read_text().splitlines()


@pytest.mark.parametrize("name", list(POLICIES))
def test_pid1_stays_cheap(target, name):
    assert not imported(target, POLICIES[name]) & NEVER_IN_PID1


def test_what_starts_the_agent_is_as_cheap(target):
    """The handover imports it by name, so the table of stages does not show it."""
    words = [initramfs.PID1, stages.AGENT_START]
    loaded = python.trace(target, python_closure.package_root(), words, made=(python_closure.TWIN,))
    names = {module.name for module in loaded}
    assert not names & NEVER_IN_PID1
    assert not {name for name in names if name.startswith("troth.attest")}


@pytest.mark.parametrize("name", ["base", "verity", "overlay"])
def test_an_image_without_snp_asks_for_no_reports(name):
    lines = (LISTS / f"profile-{name}.txt").read_text().split()
    assert not [word for word in lines if "attest" in word or word.endswith("_report")]


#: The kernel's parts that the front stands on.
FRONT_MODULES = {"cuse", "fuse", "virtio_console", "algif_aead", "gcm"}


@pytest.mark.parametrize("name", ["base", "verity", "overlay", "snp"])
def test_only_a_simulated_image_has_anything_of_the_simulated_platform(name):
    """SECURITY S23: a front that is not there cannot be started by anybody."""
    lines = (LISTS / f"profile-{name}.txt").read_text().split()
    assert not [word for word in lines if "simulated" in word]
    assert not kernel_modules(POLICIES[name]) & FRONT_MODULES


def test_a_simulated_image_has_the_front_and_what_it_stands_on():
    lines = (LISTS / "profile-simulated.txt").read_text().splitlines()
    assert "import troth.boot.tee_simulated" in lines
    assert "pack troth.simulated.front.main" in lines
    assert kernel_modules(POLICIES["simulated"]) >= FRONT_MODULES


def test_a_simulated_image_has_nothing_of_the_hosts_half():
    """What makes keys, signs reports or commands faults stays with the host."""
    lines = (LISTS / "profile-simulated.txt").read_text().split()
    packed = {word for word in lines if word.startswith("troth.simulated")}
    assert {word for word in packed if not word.startswith("troth.simulated.front")} == {
        "troth.simulated",
        "troth.simulated.wire",
    }
    assert not [word for word in lines if "cryptography" in word]


def test_of_pyroute2_only_its_messages_are_packed(target):
    """Its own sockets bring asyncio, ssl and unittest; its __init__ all of it."""
    lines = (LISTS / "profile-network.txt").read_text().splitlines()
    assert {line for line in lines if "pyroute2" in line} == {
        f"pack pyroute2.{name}"
        for name in ("common", "netlink", "netlink.exceptions", "netlink.rtnl",
                     "netlink.rtnl.ifaddrmsg", "netlink.rtnl.rtmsg")
    }  # fmt: skip
    heavy = {"asyncio", "ssl", "unittest", "multiprocessing", "subprocess", "hashlib"}
    assert not {line.split()[1] for line in lines} & heavy
    for name, wanted in POLICIES.items():
        others = (LISTS / f"profile-{name}.txt").read_text()
        assert (wanted.network is not None) == ("pyroute2" in others), name
        assert (wanted.network is not None) == ("virtio_net" in kernel_modules(wanted)), name


SEALED = [name for name, wanted in POLICIES.items() if wanted.encrypted]


@pytest.mark.parametrize("name", SEALED)
def test_pid1_has_nothing_of_what_its_worker_uses(target, name):
    """SECURITY S19: who never loads what handles keys cannot keep one."""
    eager = imported(target, POLICIES[name])
    assert {"troth.boot.keys", "troth.boot.volumes"} <= eager
    rooms = ("troth.volumes", "troth.ciphers", "troth.boot.key_", "cryptography")
    alone = {"ssl", "_ssl", "json", "hmac", "socket", "troth.linux.keyring"}
    assert not {module for module in eager if module.startswith(rooms) or module in alone}


def test_only_an_image_with_encrypted_volumes_has_anything_that_opens_them():
    for name in POLICIES:
        words = (LISTS / f"profile-{name}.txt").read_text().split()
        found = [word for word in words if word.startswith(("troth.volumes", "troth.boot.key_"))]
        assert bool(found) == (name in SEALED), name


def kernel_modules(wanted):
    chosen = profile.profiles_of(wanted)
    found = profile.kernel_modules(wanted, chosen, profile.load_platform("virtio"))
    return {item.name for item in found}


def test_a_profile_without_disks_has_no_verity(target):
    assert "troth.boot.verity" not in imported(target, POLICIES["base"])
    assert "troth.boot.verity" in imported(target, POLICIES["verity"])
