# SPDX-License-Identifier: Apache-2.0
"""/run/troth/bin/troth: the verbs inside the guest, run by the packed interpreter.

Started by a static launcher with an empty environment, whatever libc or
interpreter the root has. Only verbs that make sense in a guest are here.
"""

from __future__ import annotations

import sys

from troth import __version__
from troth.errors import HostError, TrothError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE = """usage: troth measurements [--json]   the event log replayed and held against the TPM
       troth status [--json]         how this guest was booted
       troth report --nonce HEX      an attestation report, in images with SNP
       troth --version
"""

#: Verbs that not every image has; a profile packs the module, and nothing here imports it.
_WHERE_PACKED = {"report": "troth.cli.guest_report"}


def main(arguments: list[str]) -> int:
    """Run one verb; the exit status is that of DESIGN section 8."""
    if arguments == ["--version"]:
        sys.stdout.write(f"troth {__version__}\n")
        return 0
    verb, *options = arguments or [""]
    if verb in _WHERE_PACKED:
        return _told(lambda: _packed(verb, options))
    if verb not in ("measurements", "status") or options not in ([], ["--json"]):
        sys.stderr.write(_USAGE)
        return 2
    return _told(lambda: _shown(verb, as_json=bool(options)))


def _shown(verb: str, *, as_json: bool) -> int:
    if verb == "measurements":
        from troth.cli import measurements

        return measurements.run(as_json=as_json)
    from troth.cli import status

    return status.run(as_json=as_json)


def _packed(verb: str, options: list[str]) -> int:
    name = _WHERE_PACKED[verb]
    try:
        module = __import__(name, fromlist=("main",))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise HostError(
            "verb-not-packed", f"this image has no {verb}", hint='its manifest says snp = "none"'
        ) from None
    status: int = module.main(options)
    return status


def _told(run: Callable[[], int]) -> int:
    try:
        return run()
    except TrothError as error:
        sys.stderr.write(f"troth: error [{error.code}]: {error}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
