# SPDX-License-Identifier: Apache-2.0
"""Small bundle directories with launch digests, made by the build's own parts.

No kernel that runs and no real root, but everything reference values speak of.
"""

import contextlib
import hashlib
from pathlib import Path

from made_firmware import firmware
from made_kernel import SIGNATURE, linux_bytes
from made_policy import ROOT, policy
from troth.abi import cpio
from troth.documents import bundle, lock, policy_json, reference_values_json
from troth.documents.reference_values import FILE_NAME
from troth.image import account, build, launch_files
from troth.image.hashing import verity_image
from troth.image.inputs import manifest
from troth.record import replace

MANIFEST = """
[image]
name = "demo"
svn = 1
kernel = "debian:linux-image"
{image}
[handover]
supervise = ["/app/run"]
[root]
source = "root"
[tee]
snp = "none"
[launch]
{launch}
"""
LOCK = lock.Lock(
    lock.Kernel("linux", "1", "00" * 32),
    lock.Interpreter("/usr/bin/python3.11", "3.11.2", "00" * 32),
    (),
    (),
)


class Quiet:
    """Progress that nobody sees."""

    @contextlib.contextmanager
    def step(self, _text):
        yield


def make(folder, *, image="", launch="", variable=None, **changes):
    """Fill ``folder`` with a bundle and return its reference values."""
    folder.mkdir()
    (folder.parent / "OVMF.fd").write_bytes(firmware())
    (folder / "root.img").write_bytes(bytes(range(256)) * 48)
    made_tree = verity_image.append_tree(folder / "root.img", salt=bytes(32), uuid=bytes(16))
    verity = replace(ROOT.verity, root_hash=made_tree.root_hash.hex(), data_blocks=3)
    text = "console=ttyS0 quiet" + "".join(f" {key}={w[0]}" for key, w in (variable or {}).items())
    made_policy = replace(
        policy(volumes=(replace(ROOT, verity=verity),), vtpm="none"),
        cmdline=text,
        cmdline_forms=("plain", "ovmf-direct"),
        cmdline_variable=variable or {},
        lockdown="integrity",
        **changes,
    )
    policy_bytes = policy_json.print_(made_policy)
    members = [
        cpio.Member("modules", 0o40755),
        cpio.Member("modules/a.ko", 0o100644, b"module" + SIGNATURE),
        cpio.Member("runtime", 0o40755),
        cpio.Member("runtime/etc", 0o40755),
        cpio.Member("runtime/etc/troth", 0o40755),
        cpio.Member("runtime/etc/troth/policy.json", 0o100644, policy_bytes),
    ]
    (folder / "vmlinuz").write_bytes(linux_bytes())
    (folder / "initramfs").write_bytes(cpio.write(members))
    (folder / "cmdline").write_text(text)
    (folder / "policy.json").write_bytes(policy_bytes)
    source = MANIFEST.format(image=image, launch=launch).encode()
    parsed = manifest.parse(source, folder.parent / "troth.toml")
    launches = launch_files.make(parsed, folder, policy=made_policy, progress=Quiet())
    made = build.Made(
        manifest=parsed, kernel=None, interpreter=None, policy=made_policy,
        policy_bytes=policy_bytes, workload=None, entries=(), images=(), origins=(),
        troth_files=(), root_packages=(), unsigned_modules=(), warnings=(), launches=launches,
    )  # fmt: skip
    names = ("vmlinuz", "initramfs", "cmdline", "policy.json", "root.img", *launches.files)
    files = [artefact(folder / name) for name in names]
    values = account._values(made, files, LOCK)
    (folder / FILE_NAME).write_bytes(reference_values_json.print_(values))
    return values


def artefact(path: Path) -> bundle.Artefact:
    data = path.read_bytes()
    return bundle.Artefact(path.name, len(data), hashlib.sha256(data).hexdigest())
