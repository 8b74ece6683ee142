# SPDX-License-Identifier: Apache-2.0
"""NV indices of a TPM: read whole, defined and written, by raw commands.

Serves providers that find their report in a TPM. The TPM may be the host's:
its sizes are bounded, its answers compared with what was asked, and what it
holds is proved elsewhere. Must never undefine an index, nor write into one that
has another size than expected.

Source: TPM 2.0 Library, part 3, chapter 31.
"""

from __future__ import annotations

import time

from troth.abi import tpm_nv, tpm_wire
from troth.errors import FormatError, ProviderError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from troth.abi.tpm_nv import NvPublic
    from troth.registers.tpm_raw import Transport

    T = TypeVar("T")

_TRIES = 20
_PAUSE_S = 0.1


class NvIndices:
    """The indices of the TPM behind ``transport``; ``where`` names it in errors.

    Raises ``ProviderError``: ``provider-tpm`` where the TPM stops answering, does
    not answer what was asked, or refuses.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        where: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._where = where
        self._sleep = sleep
        self._buffer_bytes = 0

    def public(self, index: int) -> NvPublic | None:
        """What ``index`` says of itself, none where there is none."""
        code, body = self._ask(tpm_nv.read_public(index))
        if code == tpm_nv.NO_SUCH_INDEX:
            return None
        self._check(code, f"describe index 0x{index:08x}")
        return self._parsed(tpm_nv.public_of, body, index)

    def read(self, public: NvPublic) -> bytes:
        """All bytes of the index; several commands, so it may change in between."""
        authority = self._authority(public, tpm_nv.OWNER_READ, tpm_nv.AUTH_READ, "read")
        at_once = self._at_once()
        found = b""
        while len(found) < public.size_bytes:
            size = min(at_once, public.size_bytes - len(found))
            command = tpm_nv.read(public.index, authority, size_bytes=size, offset=len(found))
            code, body = self._ask(command)
            self._check(code, f"read index 0x{public.index:08x}")
            found += self._parsed(tpm_nv.data_of, body, size_bytes=size)
        return found

    def write(self, public: NvPublic, data: bytes) -> None:
        """Write ``data``, which is as long as the index."""
        if len(data) != public.size_bytes:
            raise self._failed(
                f"index 0x{public.index:08x} has {public.size_bytes} bytes, not {len(data)}"
            )
        authority = self._authority(public, tpm_nv.OWNER_WRITE, tpm_nv.AUTH_WRITE, "written")
        at_once = self._at_once()
        for offset in range(0, len(data), at_once):
            part = data[offset : offset + at_once]
            code, _body = self._ask(tpm_nv.write(public.index, authority, part, offset=offset))
            self._check(code, f"write index 0x{public.index:08x}")

    def define(self, index: int, *, size_bytes: int) -> NvPublic:
        """A new index of the owner's, which the owner reads and writes."""
        attributes = tpm_nv.OWNER_READ | tpm_nv.OWNER_WRITE
        code, _body = self._ask(tpm_nv.define_space(index, attributes, size_bytes=size_bytes))
        self._check(code, f"define index 0x{index:08x}")
        made = self.public(index)
        if made is None or made.size_bytes != size_bytes:
            raise self._failed(f"index 0x{index:08x} was defined and is not there")
        return made

    def _authority(self, public: NvPublic, owner: int, own: int, verb: str) -> int:
        if public.attributes & owner:
            return tpm_nv.OWNER
        if public.attributes & own:
            return public.index
        raise self._failed(f"index 0x{public.index:08x} may not be {verb} without a policy")

    def _at_once(self) -> int:
        if not self._buffer_bytes:
            code, body = self._ask(tpm_nv.buffer_max())
            self._check(code, "say how much it reads at once")
            self._buffer_bytes = self._parsed(tpm_nv.buffer_max_of, body)
        return self._buffer_bytes

    def _ask(self, command: bytes) -> tuple[int, bytes]:
        for _ in range(_TRIES):
            try:
                answer = self._transport.transmit(command)
            except OSError as error:
                raise self._failed(f"the TPM stopped answering: {error}") from None
            code, body = self._parsed(tpm_wire.response, answer)
            if code not in tpm_nv.TRY_AGAIN:
                return code, body
            self._sleep(_PAUSE_S)
        raise self._failed(f"the TPM was busy {_TRIES} times in a row")

    def _parsed(self, parse: Callable[..., T], *arguments: object, **named: object) -> T:
        try:
            return parse(*arguments, **named)
        except FormatError as error:
            raise self._failed(f"the TPM answered something else: {error.message}") from None

    def _check(self, code: int, what: str) -> None:
        if code:
            raise self._failed(f"the TPM refused to {what}: code 0x{code:x}")

    def _failed(self, message: str) -> ProviderError:
        return ProviderError("provider-tpm", message, where=self._where)
