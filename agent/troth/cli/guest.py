# SPDX-License-Identifier: Apache-2.0
"""/run/troth/bin/troth: the verbs inside the guest, run by the packed interpreter.

Started by a static launcher with an empty environment, whatever libc or
interpreter the root has. Only verbs that make sense in a guest are here.
"""

from __future__ import annotations

import sys

from troth import __version__
from troth.errors import TrothError

_USAGE = """usage: troth measurements [--json]   the event log replayed and held against the TPM
       troth status [--json]         how this guest was booted
       troth --version
"""


def main(arguments: list[str]) -> int:
    """Run one verb; the exit status is that of DESIGN section 8."""
    if arguments == ["--version"]:
        sys.stdout.write(f"troth {__version__}\n")
        return 0
    verb, *options = arguments or [""]
    if verb not in ("measurements", "status") or options not in ([], ["--json"]):
        sys.stderr.write(_USAGE)
        return 2
    try:
        if verb == "measurements":
            from troth.cli import measurements

            return measurements.run(as_json=bool(options))
        from troth.cli import status

        return status.run(as_json=bool(options))
    except TrothError as error:
        sys.stderr.write(f"troth: error [{error.code}]: {error}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
