# SPDX-License-Identifier: Apache-2.0
"""Primes of two RSA-4096 keys that sign nothing but what tests make.

They are here because finding them takes seconds. Whoever reads this has the
keys: nothing outside the tests may ever trust them.
"""

from functools import cache

from cryptography.hazmat.primitives.asymmetric import rsa

_ROOT_P = int(
    "f98a71bfd775187271b21eee69331193a71174fb609880223469a66b36937badffb5de32189cde88d798fc02"
    "21976a730a5bcebc6a49d8b53ee4858dbe5823aba4c3bdba3bd3505683ba9de75760bda243b130f6283b657a"
    "c28634fef66dbb58c30785d4bc8035757099a1f9930dbe342e96237fdcdf8ec56956f943ba889e9be39c07be"
    "f885ee449ed7fffc89eeaa090c64bb8c1a9882f299b076dace42b291e3f093e155151437a292d211ffc45da6"
    "02f2f36a40d957ef8fa6ffb51a19984006e807fbd84d7159882854c20583180cc8f8e644bbc6f59dd0037c7a"
    "285e97d3b6ddc9786d48ee82cb50e12c08aaf33b7c036ceed29b142a6007ea47129c7983",
    16,
)
_ROOT_Q = int(
    "d2d08f49b6fe41507ab08e1f5d78bcbd57e1f06276686be11aa3583908d6e75314a035bebec986fa8fb6c765"
    "1d1915b54d5829558590559ffed2530b5f71c0c72c070979b8b5509e8d4a4a4c0dd1a29ffed99980bdc3161e"
    "7ce2a03f5fe8a2efb351eeb10ecf907ade4db73de989a7726e300e170958169edf73a75e663f392b230a90cc"
    "a97aa0cd310d81cc0f36da0d721b2e84299cef904ea32f610ddf3dc28884cf329149f230dea622c02c1fbfd4"
    "c92ed822a41d9d63fd0ae57a32cb15de5fafda9ba1cd9a751f6168fa995f3c58f03822546242a79587b2dda6"
    "796190c37063ffbac3facc310f2b48dfbdbc50b2e2d309c7a59ab119217d69fab48267c7",
    16,
)
_INTERMEDIATE_P = int(
    "bdea1770b26779dcc458c08406524308e089fd990af73790f4220311e669c288040bf870d2efaf2f4e2ae4b3"
    "71310a02800504319cb8422ecdb68cebe2530f4ffdfc85e118b1cd12b538a7fd0eca53d23ab027a4f34e15ca"
    "11dcf1b444e15d8cd84ca1ef53cfb658e53604821009c610d27fcb59bbd725e6230e6db8b1aca4fba9770f9b"
    "361aefb2c4743dc6c957c91651ccc2cde2af82bfdc2a312e12868e55d80f892b0f7be59ad2e610f54ec834e0"
    "7e8c3de8160842782acac81cbc5d14c956b647bcfa0fac1b76ecfb385cbd8d85c56eeb5e893340dc798596a7"
    "14e398f89c37eff89ce3023502ad5d13e3b66a083666299fd06872a2e44bae939f5fd1f9",
    16,
)
_INTERMEDIATE_Q = int(
    "b97ec50f271166de3a3f8b28ef8380bd86abd2b2e6f6159a843fc7c9701de5c771f253240675550780e2e468"
    "572bd8ee055d1b799de1e0ab032ad208eb0ed24df23bd0985abf500f1c78c916f0fa05f62080d4032c3583f2"
    "54b0600c62006220d6d71060ab6c7a2d555e31fc3530f4f0127978a2f4fb3594ea9e5ca5a9dad2bf302c16bc"
    "efb5cad7aaa17c2a62e24e62e716c2577f5c8c67198ddb63b73c7a190e4668ea2ebbf61e3b8227a7fd0ac14c"
    "34692da84c6ba86abfdbf274974393727e62c0eb7f8716bc35bc2ab54964b5b652b4d08f3cd1e60c83a54626"
    "a01709d2eb827746b6e906d4d43a2d172517a9c6024a0912ca751fd955bcec49e097176d",
    16,
)


@cache
def root():
    return _key(_ROOT_P, _ROOT_Q)


@cache
def intermediate():
    return _key(_INTERMEDIATE_P, _INTERMEDIATE_Q)


def _key(p, q):
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(65537, p * q),
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)
