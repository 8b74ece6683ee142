# SPDX-License-Identifier: Apache-2.0
"""Simulated platforms for tests, quickly: their issuers' keys are those of ``made_rsa``."""

from functools import cache

import made_rsa
from troth.signing.issuing import IssuerKey
from troth.simulated import chip, pki


def issuer_keys():
    """A new supply: the root's key first, then one for every intermediate."""
    supply = iter((made_rsa.root(), made_rsa.intermediate(), made_rsa.intermediate()))
    return lambda: IssuerKey(next(supply))


def other_issuer_keys():
    """The same two keys the other way round, for another chain."""
    supply = iter((made_rsa.intermediate(), made_rsa.root(), made_rsa.root()))
    return lambda: IssuerKey(next(supply))


@cache
def platform(product="Genoa", *, vlek=False):
    return pki.make(chip.new(product), vlek=vlek, issuer_key=issuer_keys())


@cache
def other_platform(product="Genoa"):
    return pki.make(chip.new(product), issuer_key=other_issuer_keys())
