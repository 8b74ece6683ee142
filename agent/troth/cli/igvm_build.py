# SPDX-License-Identifier: Apache-2.0
"""``troth igvm build``: from a bundle to an IGVM file."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from troth.abi import snp_policy
from troth.cli.terminal import Terminal
from troth.errors import HostError
from troth.image.igvm import build as igvm_build
from troth.image.igvm import layout, parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Protocol

    class Options(Protocol):
        """What the grammar gives."""

        bundle: str
        output: str
        vcpus: int
        memory: str
        policy: str


def build(options: Options) -> int:
    """Write the file; 0, or the error that says why not."""
    terminal = Terminal()
    memory_bytes = layout.memory_size(options.memory)
    policy = snp_policy.parse_hex(options.policy, where="--policy")
    loaded = parts.read(Path(options.bundle))
    output = Path(options.output)
    with terminal.step("pages"), _replaced(output) as stream:
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


@contextlib.contextmanager
def _replaced(output: Path) -> Iterator[BinaryIO]:
    """A private file that becomes ``output`` when the block ends well; ``output-write`` if not."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    except OSError as error:
        raise HostError("output-write", f"{error.strerror}", where=str(output)) from None
    try:
        with open(descriptor, "wb") as stream:
            yield stream
            os.fchmod(stream.fileno(), 0o644)
        os.rename(name, output)
    except OSError as error:
        raise HostError("output-write", f"{error.strerror}", where=str(output)) from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
