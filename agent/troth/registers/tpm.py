# SPDX-License-Identifier: Apache-2.0
"""A TPM asked for a quote, by way of tpm2-tss.

Serves ``registers.quote_worker``, a process that lives for one quote. The only
module that imports tpm2-pytss, and of it only the compiled bindings: what the
package has in Python brings a second cryptography library with it, three times
as large. Must never run in PID 1, and must never give out a quote that it did
not compare with what it asked for.

The key is a primary of the endorsement hierarchy, ECC P-256: the TPM makes the
same one from its seed each time, so nothing is stored, in 2 ms. Not of the owner
hierarchy, for whose keys a TPM blurs the counters of resets and restarts (part
1, 36.7). A paravisor has its own key, at a handle, and that is used instead.

Source: TCG TSS 2.0 Enhanced System API 1.00; TPM 2.0 Library, part 3: 18.4
(Quote), 22.4 (PCR_Read), 24.1 (CreatePrimary); SECURITY S28.
"""

from __future__ import annotations

import os

from troth.abi import tpm_attest, tpm_wire
from troth.abi.hashes import digest
from troth.documents import binding
from troth.errors import FormatError, HostError, ProviderError
from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

PCRS = (*range(16), 23)
"""What is quoted: firmware, boot and system; and the register of applications."""
BANKS = ("sha256", "sha384")
"""In each of these that is active; SHA-1 never."""
PARAVISOR_AK = 0x81000003
"""The handle of the attestation key that Azure's paravisor made, and vouches for."""
TRIES = 3

#: fixedTPM fixedParent sensitiveDataOrigin userWithAuth noDA restricted sign; ECDSA, SHA-256.
_TEMPLATE = bytes.fromhex("0023 000b 00050472 0000 0010 0018 000b 0003 0010 0000 0000")
_VALUES_A_READ = 8


@record
class Quoted:
    """A quote as the TPM gave it: TPMT_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE, and
    ``pcrs``, (bank, index) -> value, as they were before and after it.
    """  # noqa: D205 - the fields are the summary

    ak_public: bytes
    attest: bytes
    signature: bytes
    pcrs: dict[tuple[str, int], bytes]


def quote(tcti: str, nonce: bytes, *, handle: int | None = None) -> Quoted:
    """A quote of ``PCRS`` for the verifier's ``nonce``.

    ``tcti``: a name and options of tpm2-tss, as ``device:/dev/tpmrm0``;
    ``handle``: of a persistent key, None for our own. PCRs that others extend
    meanwhile are a reason to ask again, three times. Raises ``HostError``
    ``tpm-library``; ``ProviderError``: ``tpm-command``, ``quote-banks``,
    ``quote-unsteady``, ``quote-mismatch``; ``UsageError`` ``nonce-length``.
    """
    binding.check_nonce(nonce)
    with _Tpm(tcti) as tpm:
        active = tpm.banks()
        banks = tuple(bank for bank in BANKS if bank in active)
        if not banks:
            raise ProviderError(
                "quote-banks", f"no PCR bank of {' or '.join(BANKS)} is active", where=tcti
            )
        area = tpm.key(handle)
        extra = binding.quote_binding(nonce, tpm_attest.name(area))
        selected = tuple(tpm_attest.Selection(bank, PCRS) for bank in banks)
        for _ in range(TRIES):
            before = tpm.read(banks)
            attest, signature = tpm.quote(extra, selected)
            if before != tpm.read(banks):
                continue
            if _covers(attest, signature, extra, selected, before):
                return Quoted(area, attest, signature, before)
    raise ProviderError(
        "quote-unsteady",
        f"PCRs changed during each of {TRIES} quotes",
        where=tcti,
        hint="ask again when the system has settled",
    )


def _covers(
    attest: bytes,
    signature: bytes,
    extra: bytes,
    selected: tuple[tpm_attest.Selection, ...],
    values: dict[tuple[str, int], bytes],
) -> bool:
    """Whether the quote is over ``values``; ``quote-mismatch`` where it is of something else."""
    try:
        found = tpm_attest.parse_quote(attest)
        algorithm = tpm_attest.parse_signature(signature).hash
    except FormatError as error:
        raise ProviderError("quote-mismatch", f"what the TPM signed is no quote: {error}") from None
    if (found.extra_data, found.selected) != (extra, selected):
        raise ProviderError("quote-mismatch", "the TPM quoted something else than asked for")
    ordered = b"".join(values[item.bank, pcr] for item in selected for pcr in item.pcrs)
    return digest(algorithm, ordered) == found.digest


class _Tpm:
    """A connection, and at most one key in it. Errors are ``ProviderError`` ``tpm-command``."""

    def __init__(self, tcti: str) -> None:
        self._ffi, self._lib = _bindings()
        self._where = tcti
        name, _, options = tcti.partition(":")
        self._tcti = self._ffi.new("TSS2_TCTI_CONTEXT **")
        self._esys = self._ffi.new("ESYS_CONTEXT **")
        self._key: Any = None
        self._transient = False
        self._must(
            "be opened",
            self._lib.Tss2_TctiLdr_Initialize_Ex(name.encode(), options.encode(), self._tcti),
        )
        code = self._lib.Esys_Initialize(self._esys, self._tcti[0], self._ffi.NULL)
        if code:
            self._lib.Tss2_TctiLdr_Finalize(self._tcti)
        self._must("be opened", code)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._transient:
            self._lib.Esys_FlushContext(self._esys[0], self._key)
        self._lib.Esys_Finalize(self._esys)
        self._lib.Tss2_TctiLdr_Finalize(self._tcti)

    def banks(self) -> tuple[str, ...]:
        """Active banks."""
        more, data = self._ffi.new("TPMI_YES_NO *"), self._ffi.new("TPMS_CAPABILITY_DATA **")
        self._must(
            "list its banks",
            self._lib.Esys_GetCapability(
                self._esys[0], *self._none, self._lib.TPM2_CAP_PCRS, 0, 1, more, data
            ),
        )
        # The answer's body as it came: a flag, then this structure.
        body = self._marshalled("TPMS_CAPABILITY_DATA", data[0])
        self._lib.Esys_Free(data[0])
        return tpm_wire.banks(b"\0" + body)

    def key(self, handle: int | None) -> bytes:
        """Make our key, or take the one at ``handle``; its TPMT_PUBLIC."""
        ffi, public, found = self._ffi, self._ffi.new("TPM2B_PUBLIC **"), self._ffi.new("ESYS_TR *")
        null = ffi.NULL
        if handle is None:
            template = ffi.new("TPM2B_PUBLIC *")
            boxed = tpm_attest.public_2b(_TEMPLATE)
            self._unmarshalled("TPM2B_PUBLIC", boxed, template)
            code = self._lib.Esys_CreatePrimary(
                self._esys[0], self._lib.ESYS_TR_RH_ENDORSEMENT, *self._password,
                ffi.new("TPM2B_SENSITIVE_CREATE *"), template, ffi.new("TPM2B_DATA *"),
                ffi.new("TPML_PCR_SELECTION *"), found, public, null, null, null,
            )  # fmt: skip
            self._must("make the attestation key", code)
            self._transient = True
        else:
            code = self._lib.Esys_TR_FromTPMPublic(self._esys[0], handle, *self._none, found)
            self._must(f"find the key 0x{handle:08x}", code)
            code = self._lib.Esys_ReadPublic(
                self._esys[0], found[0], *self._none, public, null, null
            )
            self._must("show its attestation key", code)
        self._key = found[0]
        boxed = self._marshalled("TPM2B_PUBLIC", public[0])
        self._lib.Esys_Free(public[0])
        return tpm_attest.public_area(boxed)

    def read(self, banks: tuple[str, ...]) -> dict[tuple[str, int], bytes]:
        """(bank, index) -> value of ``PCRS`` in ``banks``."""
        values: dict[tuple[str, int], bytes] = {}
        for bank in banks:
            for start in range(0, len(PCRS), _VALUES_A_READ):
                some = PCRS[start : start + _VALUES_A_READ]
                for index, value in zip(some, self._read(bank, some), strict=True):
                    values[bank, index] = value
        return values

    def _read(self, bank: str, pcrs: tuple[int, ...]) -> list[bytes]:
        ffi, found = self._ffi, self._ffi.new("TPML_DIGEST **")
        wanted = self._selection((tpm_attest.Selection(bank, pcrs),))
        code = self._lib.Esys_PCR_Read(
            self._esys[0], *self._none, wanted, ffi.NULL, ffi.NULL, found
        )
        self._must("read PCRs", code)
        values = [
            bytes(ffi.buffer(found[0].digests[at].buffer, found[0].digests[at].size))
            for at in range(found[0].count)
        ]
        self._lib.Esys_Free(found[0])
        if [len(value) for value in values] != [tpm_wire.SIZES[bank]] * len(pcrs):
            raise ProviderError(
                "tpm-command", f"it read other PCRs of {bank} than asked for", where=self._where
            )
        return values

    def quote(
        self, extra: bytes, selected: tuple[tpm_attest.Selection, ...]
    ) -> tuple[bytes, bytes]:
        """(TPMS_ATTEST, TPMT_SIGNATURE) by the key that ``key`` chose."""
        ffi = self._ffi
        attest, signature = ffi.new("TPM2B_ATTEST **"), ffi.new("TPMT_SIGNATURE **")
        scheme = ffi.new("TPMT_SIG_SCHEME *")
        scheme.scheme = self._lib.TPM2_ALG_NULL
        data = ffi.new("TPM2B_DATA *")
        data.size = len(extra)
        ffi.memmove(data.buffer, extra, len(extra))
        code = self._lib.Esys_Quote(
            self._esys[0], self._key, *self._password, data, scheme,
            self._selection(selected), attest, signature,
        )  # fmt: skip
        self._must("quote", code)
        signed = bytes(ffi.buffer(attest[0].attestationData, attest[0].size))
        by = self._marshalled("TPMT_SIGNATURE", signature[0])
        self._lib.Esys_Free(attest[0])
        self._lib.Esys_Free(signature[0])
        return signed, by

    @property
    def _none(self) -> tuple[int, int, int]:
        nothing: int = self._lib.ESYS_TR_NONE
        return nothing, nothing, nothing

    @property
    def _password(self) -> tuple[int, int, int]:
        """The empty password: nobody but who may open the device speaks to this TPM."""
        return (self._lib.ESYS_TR_PASSWORD, *self._none[1:])

    def _selection(self, selected: tuple[tpm_attest.Selection, ...]) -> Any:  # noqa: ANN401
        made = self._ffi.new("TPML_PCR_SELECTION *")
        self._unmarshalled("TPML_PCR_SELECTION", tpm_attest.print_selection(selected), made)
        return made

    def _unmarshalled(self, kind: str, data: bytes, into: Any) -> None:  # noqa: ANN401
        offset = self._ffi.new("size_t *")
        read = getattr(self._lib, f"Tss2_MU_{kind}_Unmarshal")
        self._must(f"take a {kind}", read(data, len(data), offset, into))

    def _marshalled(self, kind: str, value: Any) -> bytes:  # noqa: ANN401
        room, offset = self._ffi.new("uint8_t[4096]"), self._ffi.new("size_t *")
        write = getattr(self._lib, f"Tss2_MU_{kind}_Marshal")
        self._must(f"give a {kind}", write(value, room, len(room), offset))
        return bytes(self._ffi.buffer(room, offset[0]))

    def _must(self, what: str, code: int) -> None:
        if code:
            words = self._ffi.string(self._lib.Tss2_RC_Decode(code)).decode("ascii", "replace")
            raise ProviderError(
                "tpm-command",
                f"the TPM could not {what}: code 0x{code:x}, {words}",
                where=self._where,
            )


def _bindings() -> tuple[Any, Any]:
    """The bindings' ``ffi`` and ``lib``. ``HostError`` ``tpm-library``."""
    # Else it writes lines of its own to standard error for whatever fails.
    os.putenv("TSS2_LOG", "all+NONE")
    try:
        from tpm2_pytss._libtpm2_pytss import ffi, lib
    except ImportError as error:
        raise HostError(
            "tpm-library",
            f"tpm2-pytss is not here: {error}",
            hint="an image with [attest] quote = true has it; elsewhere `pip install tpm2-pytss`",
        ) from None
    return ffi, lib
