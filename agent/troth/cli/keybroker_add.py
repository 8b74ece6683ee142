# SPDX-License-Identifier: Apache-2.0
"""``troth keybroker add``: a class of guests, a volume, another secret, or who may have one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from troth.cli import broker_database, reference_file
from troth.errors import FormatError, UsageError
from troth.keybroker import classes, resources, volume_state
from troth.keybroker.volume_state import Volume
from troth.signing import keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Options(Protocol):
        """What the grammar gives."""

        db: str
        reference: str | None
        key: list[str]
        pending: bool
        activate: str | None
        svn: int | None
        volume: str | None
        resource: str | None
        grant: str | None
        file: str | None
        image: list[str]
        uuid: str | None
        integrity: str
        format: str
        key_file: str
        in_use: bool
        generation: int | None
        record: str | None
        lease: int | None
        format_time: int | None
        passphrase_file: str | None


GENERATED = "generated"
_WHAT = ("reference", "activate", "volume", "resource", "grant")
_MAX_S = 30 * 86400
_MAX_KEY_BYTES = 64


def add(options: Options) -> int:
    """Add what the options name.

    Raises ``UsageError`` ``broker-option``, ``broker-*``; ``FormatError`` as ``classes.add``
    and ``resources.add_volume``.
    """
    given = [name for name in _WHAT if getattr(options, name) is not None]
    if len(given) != 1:
        raise _wrong("give one of --reference, --activate, --volume, --resource and --grant")
    _fitting(options, given[0])
    if options.reference is not None:
        return _class(options, options.reference)
    if options.activate is not None:
        with broker_database.opened(options.db, needs_keys=False) as store:
            versions = classes.activate(store, options.activate, options.svn)
        return _say(f"{options.activate}: active svn {', '.join(str(n) for n in versions)}")
    if options.grant is not None:
        images = _images(options.image)
        with broker_database.opened(options.db, needs_keys=False) as store:
            path = resources.grant(store, options.grant, images).path
        return _say(f"{path}: also for {', '.join(images)}")
    if options.volume is not None:
        return _volume(options, options.volume)
    return _opaque(options, options.resource or "")


def _fitting(options: Options, what: str) -> None:
    """Refuse options that belong to something else: they would do nothing."""
    own = {
        "reference": ("key", "pending"),
        "activate": ("svn",),
        "volume": ("image", "uuid", "in_use", "generation", "record", "lease", "format_time"),
        "resource": ("image", "file"),
        "grant": ("image",),
    }
    for name in sorted({name for names in own.values() for name in names} - set(own[what])):
        if getattr(options, name):
            raise _wrong(f"--{name.replace('_', '-')} does not go with --{what}")


def _class(options: Options, name: str) -> int:
    if not options.key:
        raise UsageError(
            "reference-key-missing",
            "nobody is named whose signature counts",
            hint="--key PEM: the public half of whoever signed the reference values",
        )
    document = reference_file.read(name)
    public = reference_file.public_keys(options.key)
    at = broker_database.now()
    if not broker_database.exists(options.db):
        kind = classes.kind_of(classes.judged(document, public, at=at))
        broker_database.create(options.db, kind, passphrase_file=options.passphrase_file)
        _say(f"{options.db}: made, for {kind} guests only")
    with broker_database.opened(options.db, needs_keys=False) as store:
        found = classes.add(store, document, public, pending=options.pending, at=at)
    return _say(f"class {found.image} svn {found.svn}: {found.state}")


def _volume(options: Options, path: str) -> int:
    if options.uuid is None:
        raise _wrong("--volume needs --uuid: the volume's id, as policy.json of its image has it")
    images = _images(options.image)
    volume = Volume(
        state=volume_state.IN_USE if options.in_use else volume_state.NEW,
        generation=options.generation or 0,
        record=options.record or "",
        lease_s=_seconds("--lease", options.lease, volume_state.LEASE_S),
        format_s=_seconds("--format-time", options.format_time, volume_state.FORMAT_S),
    )
    if not options.in_use and (volume.generation or volume.record):
        raise _wrong("--generation and --record are of a volume that is --in-use")
    if options.in_use and options.key_file == GENERATED:
        raise _wrong("a volume --in-use has its key already: --key-file FILE")
    key = resources.new_key()
    if options.key_file != GENERATED:
        key = keys_of(options.key_file)
    with broker_database.opened(options.db, passphrase_file=options.passphrase_file) as store:
        try:
            made = resources.add_volume(
                store,
                path,
                uuid=options.uuid,
                profile=f"{options.format}/{options.integrity}/4096",
                key=key,
                images=images,
                volume=volume,
                at=broker_database.now(),
            )
        except FormatError as error:
            raise _wrong(error.message) from None
    return _say(f'volume {made.path}: {volume.state}, key = "kbs:///{made.path}"')


def _opaque(options: Options, path: str) -> int:
    if options.file is None:
        raise _wrong("--resource needs --file: the secret")
    images = _images(options.image)
    secret = broker_database.read(options.file, resources.MAX_SECRET_BYTES, code="broker-key-file")
    with broker_database.opened(options.db, passphrase_file=options.passphrase_file) as store:
        made = resources.add_opaque(store, path, secret, images=images, at=broker_database.now())
    return _say(f"resource {made.path}: {len(secret)} bytes")


def keys_of(name: str) -> bytes:
    """A volume's key from a file: its bytes as they are. ``UsageError`` ``broker-key-file``."""
    data = broker_database.read(name, keys.MAX_KEY_BYTES, code="broker-key-file")
    if not resources.KEY_BYTES <= len(data) <= _MAX_KEY_BYTES:
        raise UsageError(
            "broker-key-file",
            f"{len(data)} bytes; a key has {resources.KEY_BYTES} to {_MAX_KEY_BYTES}",
            where=name,
            hint="head -c 32 /dev/urandom makes one; text with a newline is none",
        )
    return data


def _images(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise _wrong("--image says whose guests may have it")
    return names


def _seconds(option: str, value: int | None, absent: int) -> int:
    if value is None:
        return absent
    if not 0 <= value <= _MAX_S:
        raise _wrong(f"{option} is 0 to {_MAX_S} seconds")
    return value


def _say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return 0


def _wrong(message: str) -> UsageError:
    return UsageError("broker-option", message, hint="see: troth keybroker add --help")
