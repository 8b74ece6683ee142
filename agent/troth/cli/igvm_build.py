# SPDX-License-Identifier: Apache-2.0
"""``troth igvm build``: from a bundle to an IGVM file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.cli import output_file
from troth.cli.terminal import Terminal
from troth.image.igvm import build as igvm_build
from troth.image.igvm import layout, parts

if TYPE_CHECKING:
    from typing import Protocol

    class Options(Protocol):
        """What the grammar gives."""

        bundle: str
        output: str
        vcpus: int
        memory: str
        policy: str


def build(options: Options) -> int:
    """Write the file and return 0.

    Raises ``UsageError`` ``output-file``, also for a file of the bundle itself,
    and the errors of ``layout``, ``parts``, ``snp_policy`` and the builder.
    """
    terminal = Terminal()
    memory_bytes = layout.memory_size(options.memory)
    policy = snp_policy.parse_hex(options.policy, where="--policy")
    folder, output = Path(options.bundle), options.output
    loaded = parts.read(folder)
    output_file.spare(output, *(folder / name for name in loaded.names))
    with terminal.step("pages"), output_file.replaced(output) as stream:
        size_bytes = igvm_build.build(
            kernel=loaded.kernel,
            initramfs=loaded.initramfs,
            cmdline=loaded.cmdline,
            memory_bytes=memory_bytes,
            vcpus=options.vcpus,
            policy=policy,
            tpm=loaded.tpm,
            stream=stream,
        )
    terminal.line(
        f"wrote {output}: {size_bytes} bytes, {memory_bytes >> 20} MiB of memory, "
        f"{options.vcpus} processor{'s' if options.vcpus > 1 else ''}, policy {policy:#x}"
    )
    terminal.line(f"next: troth measure igvm {output} --vcpus {options.vcpus} --vcpu-type TYPE")
    terminal.line("experimental: never launched on SNP hardware (docs/igvm.md)")
    return 0
