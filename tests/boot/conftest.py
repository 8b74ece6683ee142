# SPDX-License-Identifier: Apache-2.0
"""Guests under QEMU: bundles built once a run, copies of them to break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from boot import machine
from boot.bundles import TROTH, Forge
from boot.keyed import Keyed, blank
from boot.variants import Variant

_PROGRAMS = ("qemu-system-x86_64", "swtpm", "gcc", "mkfs.erofs", "apt-get", "dpkg-deb")


def pytest_collection_modifyitems(items):
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    missing += [] if TROTH.exists() else [str(TROTH)]
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.boot)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing)}"))


@pytest.fixture(scope="session")
def forge(tmp_path_factory, worker_id):
    base = tmp_path_factory.getbasetemp()
    # Workers of one run have directories of their own below one that they share.
    return Forge((base if worker_id == "master" else base.parent) / "bundles")


@pytest.fixture(scope="session")
def token(forge):
    return forge.token


@pytest.fixture(scope="session")
def keyed(forge, worker_id):
    """Images that ask a broker, one set a worker: each has its own port of the loopback."""
    made = Keyed(forge, forge.base / f"keyed-{worker_id}")
    yield made
    made.wire.close()


@pytest.fixture
def fresh(keyed, tmp_path):
    """(broker, disk) of a test's own: the volume new, the disk blank."""
    broker, disk = keyed.broker(tmp_path / "db", "keyed"), blank(tmp_path / "data.img")
    keyed.add_volume(broker)
    yield broker, disk
    disk.unlink()


@pytest.fixture
def boot(tmp_path):
    """Boots a bundle in this test's scratch directory."""

    def boot(bundle, *options, **keywords):
        path = bundle.path if isinstance(bundle, Variant) else bundle
        return machine.run(path, tmp_path, *options, **keywords)

    return boot


@pytest.fixture
def variant(forge, tmp_path):
    """Makes a copy of a shared bundle, "full" unless another is named; gone after the test."""
    place = tmp_path / "variant"
    yield lambda name="full": Variant(forge.bundle(name), place)
    # pytest keeps the directories of three runs, and these are large.
    shutil.rmtree(place, ignore_errors=True)
