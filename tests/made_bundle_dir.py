# SPDX-License-Identifier: Apache-2.0
"""A bundle directory just good enough to be run with a stand-in for QEMU."""

import hashlib
import json

from troth.documents import bundle as bundle_document


def make_bundle(
    folder,
    *,
    snp="none",
    scene="clean",
    instance=None,
    name="demo",
    vtpm="none",
    handover="switch",
    network=None,
):
    """``instance``, ``network``: the policy's, as in policy.json."""
    folder.mkdir()
    files = {"vmlinuz": b"k", "initramfs": b"i", "cmdline": f"fake={scene}\n".encode()}
    files["root.img"] = bytes(4096)
    policy = {"handover": {"kind": handover}, "instance": instance}
    # Without one, as a bundle from before there were networks.
    policy |= {} if network is None else {"network": network}
    files["policy.json"] = json.dumps(policy).encode()
    artefacts = []
    for file, data in files.items():
        (folder / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        artefacts.append(bundle_document.Artefact(file, len(data), digest))
    document = bundle_document.Bundle(
        name=name,
        svn=1,
        troth_version="0",
        kernel_release="6",
        snp=snp,
        vtpm=vtpm,
        vtpm_kind="host",
        acpi_aml="",
        compression="none",
        artefacts=tuple(artefacts),
        disks=(bundle_document.Disk("root", "root.img"),),
        packed=(),
    )
    (folder / "manifest.json").write_bytes(bundle_document.print_(document))
    return folder
