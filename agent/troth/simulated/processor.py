# SPDX-License-Identifier: Apache-2.0
"""The secure processor: keys of one launch, messages opened and answered, reports signed.

Serves ``simulated.host``. It is the firmware's half of the guest message
protocol: under each VMPCK only the very next number is accepted, and the count
moves on only with a sealed answer. So no number is ever used for two answers,
whatever the host repeats, reorders or withholds. Must never let a key out but
by ``secrets_page``, and must believe nothing of a page before its tag holds,
except which key to try.

Which firmware error a broken message gives is not in the public text seen for
this: here INVALID_PARAM for a header no message has, BAD_MEASUREMENT where
number or tag do not hold, AEAD_OFLOW where the numbers are used up.

Source: AMD 56860 1.58, chapter 7, "Guest Messages"; section 8.26, SNP_GUEST_REQUEST.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from troth.abi import guest_message, guest_payload, secrets_page
from troth.abi.guest_message import Header
from troth.abi.guest_payload import KeyResponse, ReportResponse, TscInfo
from troth.abi.secrets_page import SecretsPage
from troth.errors import FormatError
from troth.record import record
from troth.signing.aead import AesGcm
from troth.simulated import derived_key, report
from troth.simulated.faults import Twist

if TYPE_CHECKING:
    from collections.abc import Callable

    from troth.abi.guest_message import Aead
    from troth.abi.guest_payload import ReportRequest
    from troth.signing.keys import PrivateKey
    from troth.simulated.launch import Launch
    from troth.simulated.pki import Pki, ReportSigner

SUCCESS = 0x00
BAD_MEASUREMENT = 0x0B
INVALID_PARAM = 0x16
AEAD_OFLOW = 0x1D

LAST_NUMBER = (1 << 64) - 1
"""The sequence number has 64 bits in a message; a guest's own count has 32."""
_VMRK_BYTES = 32
_NO_TWIST = Twist()


@record
class Answer:
    """``firmware_error``, and the sealed ``page``, empty where there is an error."""

    firmware_error: int
    page: bytes = b""


class Processor:
    """One launched guest on ``pki``'s chip.

    ``random``: gives that many random bytes; ``aead``: makes the cipher of a
    VMPCK; ``counts``: messages so far under each VMPCK. Raises ``FormatError``
    ``sim-launch`` where the launch does not fit the chip.
    """

    def __init__(
        self,
        launch: Launch,
        pki: Pki,
        *,
        random: Callable[[int], bytes] = os.urandom,
        aead: Callable[[bytes], Aead] = AesGcm,
        counts: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        launch.tcbs(pki.chip)
        if launch.vlek and pki.vlek is None:
            raise FormatError("sim-launch", "this platform has no VLEK to load")
        self.launch = launch
        self.report_id = random(32)
        self._pki = pki
        self._vmpcks = tuple(random(secrets_page.VMPCK_BYTES) for _ in range(secrets_page.VMPCKS))
        self._ciphers = tuple(aead(key) for key in self._vmpcks)
        self._counts = list(counts)
        self._vmrk = random(_VMRK_BYTES)
        self._keys: dict[bytes, PrivateKey] = {}

    @property
    def counts(self) -> tuple[int, ...]:
        """Messages so far under each VMPCK."""
        return tuple(self._counts)

    def secrets_page(self) -> bytes:
        """The page that is injected into the guest, 4096 bytes.

        Below a service module it is the module's copy: without the keys of the
        levels above the guest's, and with the module's fields.
        """
        page = SecretsPage(
            vmpcks=self._vmpcks,
            fms=self._pki.chip.cpuid_eax,
            tsc_factor=self.launch.tsc_factor,
        )
        if self.launch.svsm is not None:
            page = secrets_page.below(page, self.launch.svsm)
        return secrets_page.encode(page)

    def request(self, page: bytes, *, twist: Twist = _NO_TWIST, other: Pki | None = None) -> Answer:
        """Answer the sealed ``page``; any bytes are taken.

        ``twist``: what to do wrong in a report; ``other``: the platform that is
        to sign in this one's place.
        """
        try:
            header = guest_message.peek(page)
        except FormatError:
            return Answer(INVALID_PARAM)
        if header.version not in _VERSIONS.get(header.kind, ()):
            return Answer(INVALID_PARAM)
        count = self._counts[header.vmpck]
        if count > LAST_NUMBER - 2:
            return Answer(AEAD_OFLOW)
        cipher = self._ciphers[header.vmpck]
        expected = Header(count + 1, header.kind, header.version, header.vmpck)
        try:
            payload = guest_message.open_(page, expected, cipher)
        except FormatError:
            return Answer(BAD_MEASUREMENT)
        if header.kind == guest_message.REPORT_REQUEST:
            answer = self._report(payload, header.vmpck, twist, other or self._pki)
        elif header.kind == guest_message.KEY_REQUEST:
            answer = self._key(payload, header)
        else:
            answer = self._tsc_info(payload)
        sealed = guest_message.seal(guest_message.answer_to(expected), answer, cipher)
        self._counts[header.vmpck] += 2
        return Answer(SUCCESS, sealed)

    def _report(self, payload: bytes, vmpck: int, twist: Twist, pki: Pki) -> bytes:
        try:
            asked = guest_payload.decode_report_request(payload)
        except FormatError:
            return _no_report(guest_payload.STATUS_INVALID_PARAM)
        if twist.status is not None:
            return _no_report(twist.status)
        if not vmpck <= asked.vmpl <= 3:
            return _no_report(guest_payload.STATUS_INVALID_PARAM)
        signer = self._signer(asked, pki)
        if isinstance(signer, int):
            return _no_report(signer)
        made = self._made(asked, signer, twist, pki)
        answer = guest_payload.encode_report_response(ReportResponse(guest_payload.STATUS_OK, made))
        if twist.report_bytes is not None:
            answer = answer[:4] + twist.report_bytes.to_bytes(4, "little") + answer[8:]
        return answer

    def _signer(self, asked: ReportRequest, pki: Pki) -> ReportSigner | int:
        """Who signs, or the status that says why nobody does."""
        loaded = pki.vlek if self.launch.vlek else None
        match asked.key_selection:
            case guest_payload.KEY_SELECTION_AUTO:
                return loaded or pki.vcek
            case guest_payload.KEY_SELECTION_VCEK:
                return pki.vcek
            case guest_payload.KEY_SELECTION_VLEK:
                return loaded or guest_payload.STATUS_INVALID_KEY
        return guest_payload.STATUS_INVALID_PARAM

    def _made(self, asked: ReportRequest, signer: ReportSigner, twist: Twist, pki: Pki) -> bytes:
        data = asked.report_data
        if twist.wrong_nonce:
            data = bytes(byte ^ 0xFF for byte in data)
        signing = report.SIGNING_VLEK if signer.kind == "vlek" else report.SIGNING_VCEK
        masked = self.launch.mask_chip_key
        body = report.unsigned(
            self.launch,
            pki.chip,
            report.Asked(
                report_data=data,
                vmpl=asked.vmpl if twist.vmpl is None else twist.vmpl,
                report_id=self.report_id,
                signing=report.SIGNING_NONE if masked else signing,
            ),
        )
        made = report.signed(body, None if masked else self._key_of(signer))
        if twist.bad_signature:
            # The lowest bit of R: a number as good as any, and not that of these bytes.
            at = report.SIGNED_BYTES
            made = made[:at] + bytes((made[at] ^ 1,)) + made[at + 1 :]
        return made

    def _key_of(self, signer: ReportSigner) -> PrivateKey:
        if signer.key_pem not in self._keys:
            self._keys[signer.key_pem] = signer.key()
        return self._keys[signer.key_pem]

    def _key(self, payload: bytes, header: Header) -> bytes:
        chip = self._pki.chip
        try:
            asked = guest_payload.decode_key_request(payload)
        except FormatError:
            return _no_key()
        if asked.message_version != header.version or derived_key.refused(
            asked, launch=self.launch, chip=chip, vmpck=header.vmpck
        ):
            return _no_key()
        key = derived_key.derive(asked, launch=self.launch, chip=chip, vmrk=self._vmrk)
        return guest_payload.encode_key_response(KeyResponse(guest_payload.STATUS_OK, key))

    def _tsc_info(self, payload: bytes) -> bytes:
        launch = self.launch
        if len(payload) != guest_payload.TSC_INFO_BYTES or any(payload):
            found = TscInfo(guest_payload.STATUS_INVALID_PARAM, 0, 0, 0)
        else:
            found = TscInfo(
                guest_payload.STATUS_OK, launch.tsc_scale, launch.tsc_offset, launch.tsc_factor
            )
        return guest_payload.encode_tsc_info(found)


#: Type of request -> versions of the message that are known.
_VERSIONS = {
    guest_message.REPORT_REQUEST: (1,),
    guest_message.KEY_REQUEST: (1, 2),
    guest_message.TSC_INFO_REQUEST: (1,),
}


def _no_report(status: int) -> bytes:
    """An answer of the usual length, all zeros but for the status: so the real one looks."""
    head = guest_payload.encode_report_response(ReportResponse(status, b""))
    return head.ljust(guest_payload.REPORT_RESPONSE_HEAD_BYTES + report.REPORT_BYTES, b"\0")


def _no_key() -> bytes:
    return guest_payload.encode_key_response(
        KeyResponse(guest_payload.STATUS_INVALID_PARAM, bytes(guest_payload.KEY_BYTES))
    )
