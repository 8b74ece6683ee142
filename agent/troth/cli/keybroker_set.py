# SPDX-License-Identifier: Apache-2.0
"""``troth keybroker set``: what a broker holds of a volume, put right by its operator."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from troth.cli import broker_database
from troth.errors import FormatError, UsageError
from troth.keybroker import corrections
from troth.keybroker.audit import AuditLog, Decided
from troth.keybroker.corrections import Correction

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from troth.keybroker.resources import Resource

    class Options(Protocol):
        """What the grammar gives."""

        db: str
        volume: str | None
        resource: str | None
        image: list[str]
        generation: int | None
        record: str | None
        forget_record: bool
        free: bool
        remove: bool
        uuid: str | None


EVENT, CHANGED, REMOVED = "set", "changed", "removed"


def set_(options: Options) -> int:
    """Do what the options name, and write it down.

    Raises ``UsageError`` ``broker-option``, as ``corrections.correct`` and ``remove``;
    ``HostError`` ``broker-audit``.
    """
    path = _path(options)
    wanted = _wanted(options)
    at = broker_database.now()
    with broker_database.opened(options.db, needs_keys=False) as store:
        audit = AuditLog(store.folder)
        try:
            if options.remove:
                told = _teller(audit, REMOVED, at)
                found = corrections.remove(store, path, uuid=options.uuid or "", told=told)
            else:
                told = _teller(audit, CHANGED, at)
                found = corrections.correct(store, path, wanted, told=told)
        except FormatError as error:
            raise _wrong(error.message) from None
        finally:
            audit.close()
    sys.stdout.write(f"{found.path}: {'removed' if options.remove else 'changed'}\n")
    return 0


def _path(options: Options) -> str:
    given = [path for path in (options.volume, options.resource) if path is not None]
    if len(given) != 1:
        raise _wrong("give one of --volume and --resource")
    return given[0]


def _wanted(options: Options) -> Correction:
    counted = options.generation is not None or options.record is not None
    wanted = Correction(
        tuple(options.image),
        options.generation or 0,
        options.record or "",
        options.forget_record,
        options.free,
    )
    if counted and (wanted.generation < 1 or not wanted.digest):
        raise _wrong("--generation, from 1, and --record belong together")
    if counted and options.forget_record:
        raise _wrong("--forget-record does not go with --record")
    nothing = wanted == Correction()
    if options.remove is not nothing:
        raise _wrong("say what changes, or --remove alone")
    if options.uuid is not None and not options.remove:
        raise _wrong("--uuid goes with --remove")
    return wanted


def _teller(audit: AuditLog, code: str, at: int) -> Callable[[Resource, str], None]:
    def told(found: Resource, detail: str) -> None:
        volume = found.volume
        entry = Decided(
            EVENT,
            code,
            "",
            detail,
            resource=found.path,
            state=volume.state if volume is not None else "",
            generation=volume.generation if volume is not None else 0,
        )
        audit.write(entry, at=at, sync=True)

    return told


def _wrong(message: str) -> UsageError:
    return UsageError("broker-option", message, hint="see: troth keybroker set --help")
