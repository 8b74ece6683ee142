# SPDX-License-Identifier: Apache-2.0
"""What a relying party accepts below a guest: paravisors and service modules (SVSM).

Serves the verification policy: ``paravisor``, ``svsm`` and ``pcrs`` of its table
``[reference]``. No build of troth knows these digests: the cloud, or whoever
builds the service module, publishes them. Only a report that matches one of the
first two has the platform kind that lets REPORT_DATA be read as a binding of
claims or of a manifest. Must never match what it does not name: a signing key
counts only with family, image and lowest guest SVN, because old and other
images keep their signatures (source: SECURITY S1; docs/formats.md).
"""

from __future__ import annotations

import hmac

from troth.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from troth.abi.snp_report import SnpReport
    from troth.documents.toml_source import Table

AZURE_PARAVISOR = "azure-paravisor"
SVSM = "svsm"

#: Keys of each table.
PARAVISOR_KEYS = (
    "measurement", "id_key_digest", "author_key_digest", "family_id", "image_id", "min_guest_svn",
)  # fmt: skip
SVSM_KEYS = ("measurement",)

_DIGESTS = {
    "measurement": 48,
    "id_key_digest": 48,
    "author_key_digest": 48,
    "family_id": 16,
    "image_id": 16,
}
_MAX_SVN = (1 << 32) - 1
_MAX_REFERENCES = 256
_LAST_PCR = 22
# The debug PCR; 23, for applications, is above the last one.
_RESETTABLE_PCRS = (16,)


@record
class ParavisorReference:
    """One paravisor: all that is not None must be equal, and the guest SVN high enough.

    Either ``measurement``, or a key with ``family_id`` and ``image_id``.
    """

    measurement: bytes | None
    id_key_digest: bytes | None
    author_key_digest: bytes | None
    family_id: bytes | None
    image_id: bytes | None
    min_guest_svn: int

    def matches(self, report: SnpReport) -> bool:
        """Whether ``report`` is of a launch of this paravisor."""
        equal = report.guest_svn >= self.min_guest_svn
        for name in _DIGESTS:
            wanted: bytes | None = getattr(self, name)
            if wanted is not None:
                found: bytes = getattr(report, name)
                equal &= hmac.compare_digest(found, wanted)
        return equal


@record
class SvsmReference:
    """One service module with its firmware: the launch digest of both."""

    measurement: bytes

    def matches(self, report: SnpReport) -> bool:
        """Whether ``report`` is of a launch of this module."""
        return hmac.compare_digest(report.measurement, self.measurement)


def paravisors(table: Table) -> tuple[ParavisorReference, ...]:
    """``[[reference.paravisor]]`` of the table ``[reference]``.

    Raises what ``table`` raises for wrong keys and values.
    """
    found: list[ParavisorReference] = []
    for own in table.tables("paravisor", PARAVISOR_KEYS):
        values = {
            name: own.digest(name, size_bytes=size) if own.has(name) else None
            for name, size in _DIGESTS.items()
        }
        if values["measurement"] is None:
            if values["id_key_digest"] is None and values["author_key_digest"] is None:
                own.need("measurement")
            for name in ("family_id", "image_id", "min_guest_svn"):
                own.need(name)
        for name in ("measurement", "id_key_digest", "author_key_digest"):
            value = values[name]
            # Zeros are what a report has where nobody signed.
            if value is not None and not any(value):
                raise own.fail(name, "is all zero, which is no paravisor's")
        made = ParavisorReference(
            **values,
            min_guest_svn=own.integer("min_guest_svn", 0, minimum=0, maximum=_MAX_SVN),
        )
        if made in found:
            raise own.fail(next(iter(own.tree)), "this paravisor is there twice")
        found.append(made)
    _few(table, "paravisor", len(found))
    return tuple(found)


def svsms(table: Table) -> tuple[SvsmReference, ...]:
    """``[[reference.svsm]]`` of the table ``[reference]``. Raises as ``paravisors`` does."""
    found: list[SvsmReference] = []
    for own in table.tables("svsm", SVSM_KEYS):
        made = SvsmReference(own.digest("measurement", size_bytes=48))
        if made in found:
            raise own.fail("measurement", "is there twice")
        if not any(made.measurement):
            raise own.fail("measurement", "is all zero, which is no launch's")
        found.append(made)
    _few(table, "svsm", len(found))
    return tuple(found)


def pcrs(table: Table) -> tuple[tuple[int, tuple[bytes, ...]], ...]:
    """``pcrs`` of the table ``[reference]``: (index, accepted values). Raises likewise."""
    found: dict[int, tuple[bytes, ...]] = {}
    for own in table.tables("pcrs", ("index", "values")):
        own.need("index")
        own.need("values")
        index = own.integer("index", 0, minimum=0, maximum=_LAST_PCR)
        if index in found or index in _RESETTABLE_PCRS:
            raise own.fail("index", "is there twice, or is a register that anybody resets")
        values = own.digests("values", size_bytes=32)
        if not values:
            raise own.fail("values", "must name at least one value")
        found[index] = values
    return tuple(sorted(found.items()))


def _few(table: Table, key: str, count: int) -> None:
    if count > _MAX_REFERENCES:
        raise table.fail(key, f"has {count} tables, at most {_MAX_REFERENCES}")
