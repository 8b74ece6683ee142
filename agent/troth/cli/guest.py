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
    from types import ModuleType

_USAGE = """usage: troth measurements [--json]   the event log replayed and held against the TPM
       troth status [--json]         how this guest was booted, and whether its agent runs
       troth report --nonce HEX      an attestation report, in images with SNP
       troth evidence --nonce HEX    evidence by the agent, in images with SNP
       troth extend --event TYPE --data FILE|-
                                     add an event, where the agent's policy allows it
       troth --version
measurements and report ask the agent where one answers; evidence and extend need it.
"""

#: Verbs that not every image has: the module, which a profile packs and nothing here imports,
#: and what is to be said where it is not there.
_WHERE_PACKED = {
    "report": ("troth.cli.guest_report", 'its manifest says snp = "none"'),
    "evidence": ("troth.cli.evidence", 'its manifest says snp = "none"'),
    "extend": ("troth.cli.guest_agent", "its manifest gives nobody the right: [attest] extend"),
}
_AGENT = "troth.cli.guest_agent"


def main(arguments: list[str]) -> int:
    """Run one verb; the exit status is that of DESIGN section 8."""
    if arguments == ["--version"]:
        sys.stdout.write(f"troth {__version__}\n")
        return 0
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE)
        return 0
    verb, *options = arguments or [""]
    if verb in _WHERE_PACKED:
        return _told(lambda: _packed(verb, options))
    if verb not in ("measurements", "status") or options not in ([], ["--json"]):
        sys.stderr.write(_USAGE)
        return 2
    return _told(lambda: shown(verb, as_json=bool(options)))


def shown(verb: str, *, as_json: bool) -> int:
    """``measurements`` or ``status``, by the agent where one answers.

    Raises ``HostError`` ``not-booted`` outside a guest, and what the two raise.
    """
    agent = _module(_AGENT)
    if verb == "measurements":
        from troth.cli import measurements

        found = None if agent is None else agent.measurements()
        return measurements.run(as_json=as_json, found=found)
    from troth.cli import status

    return status.run(as_json=as_json, agent=None if agent is None else agent.state())


def _packed(verb: str, options: list[str]) -> int:
    name, hint = _WHERE_PACKED[verb]
    module = _module(name)
    if module is None:
        raise HostError("verb-not-packed", f"this image has no {verb}", hint=hint)
    status: int = module.main(options)
    return status


def _module(name: str) -> ModuleType | None:
    """The module ``name`` where this image has it."""
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    return sys.modules[name]


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
