# SPDX-License-Identifier: Apache-2.0
"""What a root may not hold, and what its builder should know about it.

Serves ``build``. Refused: units, masks and drop-ins that would override the
agent's own (systemd prefers /etc over the /run they live in), a missing init,
missing workload paths. Warned of: software that takes orders from the host
(cloud-init, autologin, debug shells). It must never follow a link out of the
tree.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from troth.documents import agent_units
from troth.errors import BuildError
from troth.image.roots.root_tree import DIRECTORY, FILE, LINK
from troth.record import record

if TYPE_CHECKING:
    from troth.image.roots.root_tree import RootTree

_SYSTEMD = ("lib/systemd/systemd", "usr/lib/systemd/systemd")
_CLOUD_INIT = ("usr/bin/cloud-init", "usr/bin/cloud-id", "etc/cloud/cloud.cfg")
_AUTOLOGIN = (b"--autologin", b"-a root")
_MAX_UNIT_BYTES = 256 << 10


@record
class Lint:
    """What was found: the next init's kind ("systemd", "none") and sentences for the builder."""

    manager: str
    warnings: tuple[str, ...]


def lint(
    tree: RootTree,
    *,
    init: str,
    workload: tuple[str, ...],
    manager: str = "",
    hostname: bool = False,
    where: str = "",
) -> Lint:
    """Look through ``tree``; ``init`` is the absolute path of the program PID 1 hands over to.

    ``manager``: what the manifest says, "" for finding out; ``hostname``: an
    instance configuration may set it. Raises
    ``BuildError``: ``init-missing``, ``workload-missing``,
    ``root-unit-shadowed``, ``root-init``.
    """
    program = executable(tree, init, where=where)
    for path in workload:
        if tree.resolve(path) is None:
            raise BuildError(
                "workload-missing",
                f"{path} is not in the root",
                where=where,
                hint="[measure] workload lists paths inside the root",
            )
    found = manager or ("systemd" if program in _SYSTEMD else "none")
    directories = _unit_directories(tree)
    _refuse_shadows(tree, directories, where=where)
    warnings = _warnings(tree, directories)
    if hostname and found == "systemd" and tree.resolve("/etc/hostname") is not None:
        warnings.append(
            "the root has /etc/hostname, which systemd prefers to the hostname of an instance"
            " configuration; remove it"
        )
    return Lint(manager=found, warnings=tuple(warnings))


def executable(tree: RootTree, path: str, *, where: str = "") -> str:
    """Where the program ``path`` leads inside the tree; ``BuildError`` ``init-missing``."""
    end = tree.resolve(path)
    if end is None or tree.entries[end].kind != FILE:
        reason = "is not in the root" if end is None else f"leads to a {tree.entries[end].kind}"
        raise BuildError(
            "init-missing",
            f"{path} {reason}",
            where=where,
            hint="[handover] names a program of the root, links inside it are followed",
        )
    if not tree.entries[end].mode & 0o111:
        raise BuildError(
            "init-missing", f"{path} is not executable", where=where, hint=f"chmod 0755 {end}"
        )
    return end


def _unit_directories(tree: RootTree) -> tuple[str, ...]:
    """The unit directories of the tree, each once, links (such as a merged /lib) followed."""
    found: dict[str, None] = {}
    for path in agent_units.DIRECTORIES:
        end = tree.resolve("/" + path)
        if end is not None and tree.entries[end].kind == DIRECTORY:
            found[end] = None
    return tuple(found)


def _refuse_shadows(tree: RootTree, directories: tuple[str, ...], *, where: str) -> None:
    for path in tree.entries:
        folder = posixpath.dirname(path)
        name = posixpath.basename(path)
        unit_folder, is_dropin = folder, False
        if folder not in directories and name and folder.endswith(".d"):
            unit_folder, is_dropin = posixpath.dirname(folder), True
        if unit_folder not in directories:
            continue
        # A drop-in for all services, or for all whose name begins troth-, is one for the agent.
        above = posixpath.basename(folder)
        if is_dropin and (above in agent_units.FOR_ALL or above.startswith(agent_units.AGENT)):
            raise _shadowed(path, where)
        linked = name in agent_units.FOR_ALL and tree.entries[path].kind == LINK
        if not is_dropin and (name.startswith(agent_units.AGENT) or linked):
            raise _shadowed(path, where)


def _shadowed(path: str, where: str) -> BuildError:
    return BuildError(
        "root-unit-shadowed",
        f"/{path} would change or replace the units of the troth agent",
        where=where,
        hint="remove it from the root; settings for all services can be set per service",
    )


def _warnings(tree: RootTree, directories: tuple[str, ...]) -> list[str]:
    warnings = []
    cloud = next((path for path in _CLOUD_INIT if tree.resolve("/" + path) is not None), None)
    if cloud and "etc/cloud/cloud-init.disabled" not in tree.entries:
        warnings.append(
            f"cloud-init (/{cloud}) takes configuration from disks of the host;"
            " remove it or add /etc/cloud/cloud-init.disabled"
        )
    for path in sorted(tree.entries):
        name = posixpath.basename(path)
        folder = posixpath.dirname(path)
        within = any(folder == unit or folder.startswith(unit + "/") for unit in directories)
        if not within:
            continue
        enabled = folder.endswith((".wants", ".requires"))
        if name == "debug-shell.service" and enabled:
            warnings.append(f"/{path} opens a root shell without login")
        if "getty" in path and tree.entries[path].kind == FILE:
            text = tree.read(path, limit_bytes=_MAX_UNIT_BYTES)
            if any(words in text for words in _AUTOLOGIN):
                warnings.append(f"/{path} logs in on a console of the host without password")
    return warnings
