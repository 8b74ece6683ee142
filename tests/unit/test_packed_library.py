# SPDX-License-Identifier: Apache-2.0
"""Certificates in a guest, whose ``cryptography`` is without the parts that nobody imports."""

import subprocess
import sys

import pytest

#: In a process of its own: here the library is loaded, and whole.
_GUEST = """
import sys
sys.path.insert(0, "tests")
WITHOUT = "cryptography.hazmat.backends"

class Packed:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(WITHOUT) and {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Packed())
from cryptography.hazmat.primitives.asymmetric import ec
from troth.ciphers import certificate_request, issued_by
from troth.ciphers.key_agreement import AgreementKey

private = AgreementKey().private_key()
print(len(certificate_request.request(private)) > 150)
issuer, leaf = map(bytes.fromhex, sys.argv[1:])
print(issued_by.check_identity(leaf, [issuer], at=1760000000))
print(len(issued_by.public_key(leaf)))
print(type(sys.modules[WITHOUT + ".openssl.backend"]).__name__)
"""


@pytest.mark.parametrize(("missing", "kind"), [(True, "type"), (False, "module")])
def test_a_request_and_a_check(missing, kind):
    import made_tls

    uri = "spiffe://example.org/vm/demo"
    leaf = made_tls.certificate(made_tls.key(9), made_tls.key(1), subject="svid", uris=(uri,))
    words = [sys.executable, "-c", _GUEST.format(missing=missing)]
    words += [made_tls.authority(1).hex(), leaf.hex()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", uri, "91", kind]
