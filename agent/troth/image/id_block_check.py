# SPDX-License-Identifier: Apache-2.0
"""What an IGVM file's ID block for SNP is worth: is it for this file, and who signed it.

Serves ``troth inspect`` and ``troth measure igvm``. A block that cannot be read
or whose signature is wrong is an answer, no error. Says that signatures are
valid by the keys that lie beside them, which anybody can make: whose keys they
are only the digests tell, compared with ones that came on another way.

Source: SEV Secure Nested Paging Firmware ABI Specification (AMD 56860),
SNP_LAUNCH_FINISH, and the report's ID_KEY_DIGEST and AUTHOR_KEY_DIGEST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from troth.abi import id_block
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import X64
from troth.errors import FormatError
from troth.image import id_block as work
from troth.measure import igvm, igvm_machine
from troth.record import record

if TYPE_CHECKING:
    from troth.abi.id_block import Point
    from troth.abi.igvm.file import IgvmFile
    from troth.measure.igvm_machine import Machine


@record
class Signed:
    """A key of an ID block: ``key_digest``, 48 bytes, as a report shows it.

    ``obstacle``: why its signature is not valid, empty where it is.
    """

    key_digest: bytes
    obstacle: str


@record
class Signatures:
    """Who signed an ID block. ``obstacle``: why its keys cannot be read; then both are None.

    ``author`` is None too where there is no author key.
    """

    id_key: Signed | None
    author: Signed | None
    obstacle: str = ""

    @property
    def valid(self) -> bool:
        """Whether all that should be signed is."""
        return self.id_key is not None and not (
            self.id_key.obstacle or (self.author is not None and self.author.obstacle)
        )


@record
class Checked:
    """An ID block and what it says of its file.

    ``expected``: the launch digest in it; ``measured``: of the file with one
    processor; ``machine``: where both are one, None for nowhere that is known.
    """

    expected: bytes
    measured: bytes
    machine: Machine | None
    signatures: Signatures

    @property
    def good(self) -> bool:
        """Whether a machine is known on which this block lets the file be launched."""
        return self.machine is not None and self.signatures.valid


def check(file: IgvmFile) -> Checked | None:
    """Judge the ID block of ``file`` for SNP; None where it has none. Measures the file.

    None too for a file that is not for x64, which has no SNP launch. Raises
    ``FormatError`` ``igvm-*`` where the file changed.
    """
    platform = file.platform(h.SEV_SNP)
    if (
        file.architecture != X64
        or platform is None
        or _body(file, platform.compatibility_mask) is None
    ):
        return None
    measured = igvm.measure(file, platform="sev-snp")
    expected = measured.id_block_digest
    found = signatures(file)
    if expected is None or found is None:
        return None
    machine = igvm_machine.machine(measured, expected)
    return Checked(expected, measured.digest, machine, found)


def signatures(file: IgvmFile) -> Signatures | None:
    """Verify what the ID block of ``file`` for SNP carries; None where it has none."""
    platform = file.platform(h.SEV_SNP)
    if platform is None:
        return None
    body = _body(file, platform.compatibility_mask)
    if body is None:
        return None
    policy = next(
        (
            header.policy
            for header in file.batches()
            if isinstance(header, h.GuestPolicy)
            and header.compatibility_mask & platform.compatibility_mask
        ),
        None,
    )
    try:
        read = id_block.decode_igvm(body, policy=policy or 0)
    except FormatError as error:
        return Signatures(None, None, error.message)
    auth = read.auth
    no_policy = "" if policy is not None else "the file has no guest policy, which is signed too"
    by_id = _signed(auth.id_key, no_policy or work.id_obstacle(read.block, auth))
    if auth.author_key is None:
        return Signatures(by_id, None)
    return Signatures(by_id, _signed(auth.author_key, work.author_obstacle(auth)))


def _signed(key: Point, obstacle: str) -> Signed:
    return Signed(id_block.key_digest(key), obstacle)


def _body(file: IgvmFile, mask: int) -> bytes | None:
    for header in file.batches():
        if isinstance(header, h.SnpIdBlock) and header.compatibility_mask & mask:
            return header.body
    return None
