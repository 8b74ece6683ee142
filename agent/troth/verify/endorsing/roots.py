# SPDX-License-Identifier: Apache-2.0
"""The roots of AMD's key hierarchies, known by digest only.

Serves the verifier and the fetcher. A root certificate in a directory is a copy:
it counts where its SHA-256 stands here or in the policy, and never because it
stands in the directory. Must hold no certificate and no way to add one at run time.

Source: AMD's key distribution service, /vcek/v1/{line}/cert_chain; SHA-256 of
the DER of each line's ARK.
"""

from __future__ import annotations

from troth.abi.snp_tcb import GENOA, MILAN, TURIN

AMD_ROOTS = {
    MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}
"""Product line to the SHA-256 of its root, lower-case hex."""
