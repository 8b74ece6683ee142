# SPDX-License-Identifier: Apache-2.0
"""A software TPM for tests of this machine, spoken to by tpm2-tss over a unix socket."""

import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

LIMIT_S = 20


@contextmanager
def swtpm(directory):
    """The TCTI of a fresh TPM with the banks sha256, sha384 and what else it has."""
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")
    # A socket's path has 108 bytes at most.
    path = directory / "t"
    words = [
        "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}",
        "--server", f"type=unixio,path={path},disconnect",
        "--ctrl", f"type=unixio,path={path}.ctrl", "--flags", "not-need-init,startup-clear",
    ]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not path.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"swtpm:path={path}"
    finally:
        process.kill()
        process.wait(LIMIT_S)


def tool(tcti, *words, **options):
    """A program of tpm2-tools at that TPM; skips where it is not installed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} (package tpm2-tools) is not installed")
    return subprocess.run(
        [*words, *(("-T", tcti) if tcti else ())],
        check=True, capture_output=True, timeout=LIMIT_S, **options,
    )  # fmt: skip
