# SPDX-License-Identifier: Apache-2.0
"""PCRs by raw commands: banks, extend, read. What PID 1 needs of a TPM and no more."""

from __future__ import annotations

from troth.abi import tpm_wire
from troth.errors import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Transport(Protocol):
        """Anything that carries one command to a TPM and its answer back."""

        def transmit(self, command: bytes) -> bytes:
            """The answer to ``command``; ``OSError`` where there is none."""


#: The NV index in which an Azure paravisor keeps its SNP report (facts: HCL report).
PARAVISOR_INDEX = 0x01400001
_VALUES_A_READ = 8


class Tpm:
    """A TPM behind ``transport``; it fails as ``Refusal`` ``tpm-lost`` or ``tpm-answer``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _ask(self, command: bytes) -> tuple[int, bytes]:
        try:
            return tpm_wire.response(self._transport.transmit(command))
        except OSError as error:
            raise Refusal("tpm-lost", f"the TPM stopped answering: {error}") from error

    def _must(self, command: bytes, what: str) -> bytes:
        code, body = self._ask(command)
        if code:
            raise Refusal("tpm-answer", f"the TPM refused to {what}: code 0x{code:x}")
        return body

    def banks(self) -> tuple[str, ...]:
        """Active banks in the TPM's order."""
        return tpm_wire.banks(self._must(tpm_wire.get_banks(), "list its banks"))

    def extend(self, pcr: int, digests: tuple[tuple[str, bytes], ...]) -> None:
        """Extend ``pcr`` in every bank of ``digests``."""
        self._must(tpm_wire.pcr_extend(pcr, digests), f"extend PCR {pcr}")

    def read(self, banks: tuple[str, ...], pcrs: tuple[int, ...]) -> dict[tuple[str, int], bytes]:
        """(bank, PCR) -> value for up to eight ``pcrs`` in each of ``banks``."""
        found: dict[tuple[str, int], bytes] = {}
        # One command answers at most eight values (part 2, TPML_DIGEST).
        at_once = max(1, _VALUES_A_READ // len(pcrs))
        for start in range(0, len(banks), at_once):
            some = banks[start : start + at_once]
            body = self._must(tpm_wire.pcr_read(some, pcrs), "read PCRs")
            found.update(tpm_wire.pcr_values(body, some, pcrs))
        return found

    def clock(self) -> tuple[int, int, int]:
        """(resets, restarts, milliseconds), by which a quote tells that it is the same TPM."""
        return tpm_wire.clock(self._must(tpm_wire.read_clock(), "tell its clock"))

    def has_paravisor_report(self) -> bool:
        """Whether the NV index of a paravisor's report exists."""
        code, _body = self._ask(tpm_wire.nv_read_public(PARAVISOR_INDEX))
        return code == 0
