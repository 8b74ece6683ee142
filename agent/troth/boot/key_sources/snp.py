# SPDX-License-Identifier: Apache-2.0
"""``snp:``: a key that the secure processor derives for this guest on this chip.

Serves ``sources``. It is bound to the chip: the same guest elsewhere gets
another key, and nobody can give it back. What is mixed in besides stands in the
URI. TCB version and guest SVN may be those of an earlier boot, so that an update
keeps the volume; they are part of the result, because who opens the volume later
must know them. Must never print the key. A host decides when a guest is started
and with which disk, so old states of the volume pass.

Source: AMD 56860 1.58, section 7.2, "Key Derivation".
"""

from __future__ import annotations

import os

from troth.abi import guest_payload, snp_report
from troth.abi.guest_payload import KeyRequest
from troth.errors import ProviderError
from troth.volumes.release import Release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.boot.key_sources.sources import Surroundings, Wanted
    from troth.documents.key_uri import KeyUri

_FIELDS = {
    "policy": guest_payload.FIELD_POLICY,
    "image_id": guest_payload.FIELD_IMAGE_ID,
    "family_id": guest_payload.FIELD_FAMILY_ID,
    "measurement": guest_payload.FIELD_MEASUREMENT,
    "guest_svn": guest_payload.FIELD_GUEST_SVN,
    "tcb": guest_payload.FIELD_TCB_VERSION,
}
_COMMITTED_TCB_AT = 0x1E0


class SnpSource:
    """Keys with ``fields`` mixed in, words of ``key_uri.SNP_FIELDS``."""

    def __init__(self, fields: tuple[str, ...], surroundings: Surroundings) -> None:
        self._fields = fields
        self._surroundings = surroundings

    def release(self, wanted: Wanted) -> Release:
        """The 32 bytes for this guest; TCB and SVN as ``wanted`` says, or its own.

        Raises ``ProviderError``: as ``SevGuestProvider.derived_key``, and
        ``key-later`` for a TCB or an SVN above the guest's own; as the evidence raises.
        """
        # The level matters too, and the report says it: under a service module it is not 0.
        report, _certificates = self._surroundings.evidence(os.urandom(64))
        own = snp_report.parse(report)
        tcb = svn = None
        if "tcb" in self._fields:
            # Firmware may still go back to what is not committed, and then refuse.
            committed = report[_COMMITTED_TCB_AT : _COMMITTED_TCB_AT + 8]
            tcb = int.from_bytes(committed, "little") if wanted.tcb is None else wanted.tcb
        if "guest_svn" in self._fields:
            svn = own.guest_svn if wanted.guest_svn is None else wanted.guest_svn
            if svn > own.guest_svn:
                raise ProviderError(
                    "key-later",
                    f"the volume is of guest SVN {svn}, and this guest has {own.guest_svn}",
                    hint="boot the image that wrote it, or a later one",
                )
        request = KeyRequest(
            root_key=guest_payload.ROOT_KEY_VCEK,
            fields=sum(_FIELDS[name] for name in self._fields),
            vmpl=own.vmpl,
            guest_svn=svn or 0,
            tcb_version=tcb or 0,
        )
        key = bytearray(self._surroundings.derived_key(request))
        return Release(key, f"snp:{','.join(self._fields)}", tcb=tcb, guest_svn=svn)

    def commit(self, generation: int, digest: str) -> None:  # noqa: ARG002 - of the interface
        """Nobody keeps generations here: ``ProviderError`` ``key-untracked``."""
        raise ProviderError("key-untracked", "snp: keeps no generations")


def make(uri: KeyUri, surroundings: Surroundings) -> SnpSource:
    """The source with the fields of ``uri``."""
    return SnpSource(uri.fields, surroundings)
