# SPDX-License-Identifier: Apache-2.0
"""The whole error tree.

::

    TrothError              code, message, where, hint; exit status 1
    ├── UsageError          the request itself is wrong; exit status 2
    │   └── ManifestError   troth.toml, with file and line in ``where``
    ├── HostError           this machine lacks something; exit status 3
    ├── FormatError         bytes or a document from outside break their format
    ├── BuildError          an image cannot be made from these inputs
    ├── Refusal             the guest ends its boot; the code is printed and measured
    │   └── VeiledRefusal   the same for what is not authenticated yet: the host learns the stage
    ├── ProviderError       the platform, or the agent, gave no report that can be used
    └── MachineError        a virtual machine did not do what was asked of it

``code`` is stable, lower case words joined by hyphens, listed in
``docs/errors.md``. ``message`` says what happened in one sentence, ``where``
names the file, disk or offset, ``hint`` says what to do. Errors are raised at
the fact and worded once, by whoever prints them.

Serves every room, PID 1 included; must never import anything.
"""

from __future__ import annotations


class TrothError(Exception):
    """Base of all errors that troth raises on purpose."""

    exit_status = 1

    def __init__(self, code: str, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}"


class UsageError(TrothError):
    """The request is wrong: an option, a combination, a value."""

    exit_status = 2


class ManifestError(UsageError):
    """The manifest is wrong; ``where`` is ``file:line``."""


class HostError(TrothError):
    """This machine lacks a program, a device or a right."""

    exit_status = 3


class FormatError(TrothError):
    """Bytes from outside do not have the format they claim."""


class BuildError(TrothError):
    """These inputs do not make an image."""


class Refusal(TrothError):  # noqa: N818 - the word of the console line and of the log
    """PID 1 will not go on. The code is public: it is printed and measured."""


class VeiledRefusal(Refusal):
    """A refusal whose ``code`` is its stage's; ``exact`` and the message are for the operator.

    What the host could learn from them would be an oracle (SECURITY S41): they reach
    the console only where the policy says ``[fail] detail = "console"``.
    """

    def __init__(self, code: str, exact: str, message: str) -> None:
        super().__init__(code, message)
        self.exact = exact


class ProviderError(TrothError):
    """A report or a key was asked of the platform, and what came cannot be used."""


class MachineError(TrothError):
    """A virtual machine, or a program beside it, did not do what was asked."""
