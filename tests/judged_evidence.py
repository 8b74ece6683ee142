# SPDX-License-Identifier: Apache-2.0
"""Made evidence, judged: what its tests share."""

from __future__ import annotations

import hashlib
from functools import cache

import made_appraisal
import made_evidence as made
from troth.documents import (
    appraisal_policy_toml,
    dsse,
    evidence,
    reference_document,
)
from troth.signing import keys, reference
from troth.verify.evidence import Asked, Given, appraise

ASKED = Asked(
    nonce=made.NONCE, user_data=made.USER_DATA, channel_sha256=made.CHANNEL,
)  # fmt: skip
QUOTE = {
    "quote-format", "ak-attributes", "ak-key", "ak-in-tpm", "quote-signature", "quote-fresh",
    "quote-pcrs", "quote-banks", "quote-replay", "quote-counters",
}  # fmt: skip
#: A VCEK has no provider, this guest no TPM and no second report, and nobody remembers it.
NOT_MADE = QUOTE | {"provider-allowed", "reports-agree", "log-rollback"}


@cache
def signed(values=made.VALUES, number=1):
    private = keys.load_private(made.signer(number)[0])
    return dsse.print_(reference.sign(values, [private]))


def judge(
    data=None, *, values=None, policy=None, asked=ASKED, document=None, given=None, public=(),
    at=made.AT,
):  # fmt: skip
    """The result for the document ``data``."""
    data = data or base()
    text = policy or made.policy_text()
    parsed = appraisal_policy_toml.parse(text.encode(), where="policy.toml")
    whole = Given(
        document=reference_document.read(document or signed(values or made.VALUES)),
        keys=public,
        endorsements=given or made_appraisal.base_endorsements(),
        policy=parsed,
        policy_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )
    return appraise(evidence.parse(data), asked, whole, subject=data, at=at)


@cache
def base():
    return made.document()


def other_boot():
    return tuple(
        (kind, pcr, content.replace(b"ab" * 32, b"ba" * 32)) for kind, pcr, content in made.BOOT
    )
