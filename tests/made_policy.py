# SPDX-License-Identifier: Apache-2.0
"""Policies made to order, for the tests of the packer."""

from troth.documents.policy import (
    Fail,
    Handover,
    InstanceRules,
    Network,
    Policy,
    Verity,
    Volume,
)

ROOT = Volume(
    name="root",
    device="serial:root",
    mount="/",
    file_system="erofs",
    options="",
    verity=Verity("00" * 32, "00" * 32, "", 16, 16, 4096, "sha256", ()),
)

INSTANCE = InstanceRules(
    need="required",
    hostname=True,
    network=("dhcp", "static"),
    brokers=("keys",),
    values={"region": ("eu", "us"), "owner": ()},
)

NETWORK = Network("dhcp", "", "", (), ipv6=False, timeout_s=20)


def policy(
    *,
    volumes=(ROOT,),
    overlay="tmpfs",
    kind="switch",
    workload=(),
    vtpm="required",
    snp="none",
    instance=None,
):
    """A policy of an image that measures into the host's TPM."""
    return Policy(
        image_name="demo",
        svn=1,
        kernel_release="6.0-test",
        snp=snp,
        vtpm=vtpm,
        vtpm_kind="host",
        owned_pcrs=(11, 14, 15),
        cmdline="",
        cmdline_forms=(),
        cmdline_variable={},
        modules=(),
        volumes=volumes,
        overlay=overlay,
        overlay_paths=(),
        workload=workload,
        handover=Handover(kind, ("/sbin/init",), "none", 0, 0, 5),
        fail=Fail("poweroff", "console", 60, 10),
        lockdown="",
        modules_disabled=False,
        acpi_aml="unprotected",
        instance=instance,
    )
