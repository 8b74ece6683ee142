# SPDX-License-Identifier: Apache-2.0
"""policy.json: what the builder decided and PID 1 obeys.

Flows from ``image`` (which prints it) to ``boot`` (which never parses JSON:
it gets the same tree as a module of literals, proved equal at build).
``docs/formats.md`` describes each field. Imported by PID 1, so this module
imports nothing but the floor; parsing and printing of the JSON text is in
``documents.policy_json``.
"""

from __future__ import annotations

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from troth.documents.policy_keys import Broker, Encrypted

SCHEMA = "troth-policy-v1"


@record
class Verity:
    """Baked geometry of one dm-verity device (hash type 1, see storage format docs).

    ``root_hash``, ``salt``: lower-case hex; ``uuid``: of the superblock;
    ``data_blocks``: blocks of ``block_bytes`` covered; ``superblock_block``:
    block number of the superblock, the tree begins in the block after it;
    ``options``: words of the kernel's verity target.
    """

    root_hash: str
    salt: str
    uuid: str
    data_blocks: int
    superblock_block: int
    block_bytes: int
    algorithm: str
    options: tuple[str, ...]


@record
class Volume:
    """A read-only verified disk: where to find it and where it goes.

    ``name``: "root" or the manifest's name; ``device``: ``KIND:VALUE``;
    ``mount``: absolute path in the root, "/" for the root itself;
    ``file_system``: kernel name; ``options``: mount data.
    """

    name: str
    device: str
    mount: str
    file_system: str
    options: str
    verity: Verity


@record
class Handover:
    """How PID 1 ends its own work.

    ``kind``: "switch" (to another init) or "supervise"; ``argv``: fixed;
    ``manager``: "systemd" or "none"; ``user``, ``group``: of the supervised
    workload, 0 for switch; ``grace_s``: seconds between SIGTERM and SIGKILL.
    """

    kind: str
    argv: tuple[str, ...]
    manager: str
    user: int
    group: int
    grace_s: int


@record
class Fail:
    """What a refused boot does: ``action`` poweroff|reboot|halt, ``detail`` public|console.

    ``deadline_s``: the whole boot up to the handover; ``device_timeout_s``: the
    wait for disks.
    """

    action: str
    detail: str
    deadline_s: int
    device_timeout_s: int


@record
class ExtendRule:
    """Who may add events of its own: user number ``user``, in systemd unit ``unit``, "" any."""

    user: int
    unit: str


REQUIRED, OPTIONAL = "required", "optional"
#: Serial of the disk that carries an instance configuration, which no volume can have.
INSTANCE_SERIAL = "instance"


@record
class InstanceRules:
    """What a launch may choose by an instance configuration (``documents.instance``).

    ``need``: "required" or "optional"; ``hostname``: whether it may be set;
    ``network``: methods, "dhcp", "static"; ``brokers``: whose addresses;
    ``values``: name -> words it may take, () for any text.
    """

    need: str
    hostname: bool
    network: tuple[str, ...]
    brokers: tuple[str, ...]
    values: dict[str, tuple[str, ...]]


DHCP, STATIC, FROM_INSTANCE = "dhcp", "static", "instance"


@record
class Network:
    """The one network device before the handover (stage network).

    ``method``: "dhcp", "static", or "instance" (what the instance configuration says).
    Of "static" alone: ``address`` with its prefix length, ``router`` ("" for none),
    ``dns`` (at most three addresses). ``ipv6``: whether the kernel speaks IPv6 there;
    ``timeout_s``: for the device and its address together.
    """

    method: str
    address: str
    router: str
    dns: tuple[str, ...]
    ipv6: bool
    timeout_s: int


NEVER, RAW_ROOT, RAW_GROUP = "never", "root", "group"


@record
class Attest:
    """Who may ask the agent for what.

    ``group``: number of the group that may use the socket, 0 for root alone;
    ``raw_report_data``: who may choose REPORT_DATA itself, "never", "root" or
    "group" (SECURITY S5); ``extend``: who may add events, nobody by default;
    ``quote``: whether evidence holds a quote of the TPM.
    """

    group: int = 0
    raw_report_data: str = NEVER
    extend: tuple[ExtendRule, ...] = ()
    quote: bool = False


@record
class Policy:
    """Everything PID 1 may decide by. Flat on purpose: one field, one decision."""

    image_name: str
    svn: int
    kernel_release: str
    snp: str
    vtpm: str
    vtpm_kind: str
    owned_pcrs: tuple[int, ...]
    cmdline: str
    cmdline_forms: tuple[str, ...]
    cmdline_variable: dict[str, tuple[str, ...]]
    modules: tuple[str, ...]
    volumes: tuple[Volume, ...]
    overlay: str
    overlay_paths: tuple[str, ...]
    workload: tuple[str, ...]
    handover: Handover
    fail: Fail
    lockdown: str
    modules_disabled: bool
    acpi_aml: str
    attest: Attest = Attest()
    instance: InstanceRules | None = None
    encrypted: tuple[Encrypted, ...] = ()
    brokers: tuple[Broker, ...] = ()
    network: Network | None = None


def from_tree(tree: dict[str, Any]) -> Policy:
    """The policy in ``tree``, whose shape ``policy_json`` or the build has proved."""
    return Policy(
        image_name=tree["image"]["name"],
        svn=tree["image"]["svn"],
        kernel_release=tree["kernel"]["release"],
        snp=tree["tee"]["snp"],
        vtpm=tree["tee"]["vtpm"],
        vtpm_kind=tree["tee"]["vtpm_kind"],
        owned_pcrs=tuple(tree["tee"]["owned_pcrs"]),
        cmdline=tree["cmdline"]["text"],
        cmdline_forms=tuple(tree["cmdline"]["forms"]),
        cmdline_variable={
            key: tuple(values) for key, values in tree["cmdline"]["variable"].items()
        },
        modules=tuple(tree["kernel"]["modules"]),
        volumes=tuple(_volume(item) for item in tree["volumes"]),
        overlay=tree["overlay"]["kind"],
        overlay_paths=tuple(tree["overlay"]["paths"]),
        workload=tuple(tree["workload"]),
        handover=Handover(
            kind=tree["handover"]["kind"],
            argv=tuple(tree["handover"]["argv"]),
            manager=tree["handover"]["manager"],
            user=tree["handover"]["user"],
            group=tree["handover"]["group"],
            grace_s=tree["handover"]["grace_s"],
        ),
        fail=Fail(
            action=tree["fail"]["action"],
            detail=tree["fail"]["detail"],
            deadline_s=tree["fail"]["deadline_s"],
            device_timeout_s=tree["fail"]["device_timeout_s"],
        ),
        lockdown=tree["kernel"]["lockdown"],
        modules_disabled=tree["kernel"]["modules_disabled"],
        acpi_aml=tree["kernel"]["acpi_aml"],
        attest=Attest(
            group=tree["attest"]["group"],
            raw_report_data=tree["attest"]["raw_report_data"],
            extend=tuple(
                ExtendRule(user=rule["user"], unit=rule["unit"])
                for rule in tree["attest"]["extend"]
            ),
            quote=tree["attest"]["quote"],
        ),
        instance=None if tree["instance"] is None else instance_rules(tree["instance"]),
        encrypted=_encrypted(tree["encrypted"]),
        brokers=_brokers(tree["brokers"]),
        network=None if tree["network"] is None else network_rules(tree["network"]),
    )


def _encrypted(trees: list[dict[str, Any]]) -> tuple[Encrypted, ...]:
    if not trees:
        return ()
    # Here, so that images without such volumes pack nothing of them.
    from troth.documents import policy_keys

    return tuple(policy_keys.encrypted(tree) for tree in trees)


def _brokers(trees: list[dict[str, Any]]) -> tuple[Broker, ...]:
    if not trees:
        return ()
    from troth.documents import policy_keys

    return tuple(policy_keys.broker(tree) for tree in trees)


def instance_rules(tree: dict[str, Any]) -> InstanceRules:
    """The rules in ``tree``, whose shape is proved as for ``from_tree``."""
    return InstanceRules(
        need=tree["need"],
        hostname=tree["hostname"],
        network=tuple(tree["network"]),
        brokers=tuple(tree["brokers"]),
        values={name: tuple(words) for name, words in tree["values"].items()},
    )


def network_rules(tree: dict[str, Any]) -> Network:
    """The network in ``tree``, whose shape is proved as for ``from_tree``."""
    return Network(
        method=tree["method"],
        address=tree["address"],
        router=tree["router"],
        dns=tuple(tree["dns"]),
        ipv6=tree["ipv6"],
        timeout_s=tree["timeout_s"],
    )


def _volume(tree: dict[str, Any]) -> Volume:
    verity = tree["verity"]
    return Volume(
        name=tree["name"],
        device=tree["device"],
        mount=tree["mount"],
        file_system=tree["file_system"],
        options=tree["options"],
        verity=Verity(
            root_hash=verity["root_hash"],
            salt=verity["salt"],
            uuid=verity["uuid"],
            data_blocks=verity["data_blocks"],
            superblock_block=verity["superblock_block"],
            block_bytes=verity["block_bytes"],
            algorithm=verity["algorithm"],
            options=tuple(verity["options"]),
        ),
    )


def to_tree(policy: Policy) -> dict[str, Any]:
    """The JSON tree of ``policy``; the inverse of ``from_tree``."""
    hand, fail = policy.handover, policy.fail
    return {
        "schema": SCHEMA,
        "image": {"name": policy.image_name, "svn": policy.svn},
        "kernel": {
            "release": policy.kernel_release,
            "modules": list(policy.modules),
            "lockdown": policy.lockdown,
            "modules_disabled": policy.modules_disabled,
            "acpi_aml": policy.acpi_aml,
        },
        "tee": {
            "snp": policy.snp,
            "vtpm": policy.vtpm,
            "vtpm_kind": policy.vtpm_kind,
            "owned_pcrs": list(policy.owned_pcrs),
        },
        "cmdline": {
            "text": policy.cmdline,
            "forms": list(policy.cmdline_forms),
            "variable": {key: list(values) for key, values in policy.cmdline_variable.items()},
        },
        "volumes": [_volume_tree(volume) for volume in policy.volumes],
        "overlay": {"kind": policy.overlay, "paths": list(policy.overlay_paths)},
        "workload": list(policy.workload),
        "handover": {
            "kind": hand.kind,
            "argv": list(hand.argv),
            "manager": hand.manager,
            "user": hand.user,
            "group": hand.group,
            "grace_s": hand.grace_s,
        },
        "fail": {
            "action": fail.action,
            "detail": fail.detail,
            "deadline_s": fail.deadline_s,
            "device_timeout_s": fail.device_timeout_s,
        },
        "attest": {
            "group": policy.attest.group,
            "quote": policy.attest.quote,
            "raw_report_data": policy.attest.raw_report_data,
            "extend": [{"user": rule.user, "unit": rule.unit} for rule in policy.attest.extend],
        },
        "instance": None if policy.instance is None else _instance_tree(policy.instance),
        "encrypted": [_plain(volume) for volume in policy.encrypted],
        "brokers": [_plain(broker) for broker in policy.brokers],
        "network": None if policy.network is None else _network_tree(policy.network),
    }


def _plain(value: Encrypted | Broker) -> dict[str, Any]:
    from troth.documents import policy_keys

    return policy_keys.tree_of(value)


def _instance_tree(rules: InstanceRules) -> dict[str, Any]:
    return {
        "need": rules.need,
        "hostname": rules.hostname,
        "network": list(rules.network),
        "brokers": list(rules.brokers),
        "values": {name: list(words) for name, words in rules.values.items()},
    }


def _network_tree(network: Network) -> dict[str, Any]:
    return {
        "method": network.method,
        "address": network.address,
        "router": network.router,
        "dns": list(network.dns),
        "ipv6": network.ipv6,
        "timeout_s": network.timeout_s,
    }


def _volume_tree(volume: Volume) -> dict[str, Any]:
    verity = volume.verity
    return {
        "name": volume.name,
        "device": volume.device,
        "mount": volume.mount,
        "file_system": volume.file_system,
        "options": volume.options,
        "verity": {
            "root_hash": verity.root_hash,
            "salt": verity.salt,
            "uuid": verity.uuid,
            "data_blocks": verity.data_blocks,
            "superblock_block": verity.superblock_block,
            "block_bytes": verity.block_bytes,
            "algorithm": verity.algorithm,
            "options": list(verity.options),
        },
    }
