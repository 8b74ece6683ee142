# SPDX-License-Identifier: Apache-2.0
"""``troth measure id-block`` and ``troth igvm sign``.

Serves those who release an image. Reads options and key files, words results;
the work is ``troth.image.id_block``'s. Must never print a byte of a private
key, nor let a policy pass that gives the guest's memory to the host without a
word about it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import tempfile
from base64 import b64encode
from typing import TYPE_CHECKING, Protocol

from troth.abi import id_block as layout
from troth.abi import snp_policy
from troth.abi.id_block import IdBlock
from troth.abi.igvm.file import FileSource, open_
from troth.abi.igvm.source import opener
from troth.cli import output_file, vcpu_options
from troth.errors import BuildError, UsageError
from troth.image import id_block as work
from troth.image.id_block import Signer
from troth.measure import igvm, vcpu
from troth.record import record
from troth.signing import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from troth.abi.id_block import IdAuth
    from troth.abi.igvm.file import IgvmFile

_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class CommonOptions(Protocol):
    """What the two verbs share: paths of keys and signatures, numbers as hex text."""

    id_key: str
    author_key: str | None
    svn: int | None
    family_id: str | None
    image_id: str | None
    detached: bool
    id_signature: str | None
    author_signature: str | None
    json: bool


class IdBlockOptions(CommonOptions, Protocol):
    """What ``id_block`` is given: the digest and the policy in hex, ``output`` a path's stem."""

    digest: str
    policy: str
    output: str | None


class SignOptions(CommonOptions, Protocol):
    """What ``sign`` is given: two paths, the policy in hex or None, the machine's processors."""

    file: str
    output: str
    policy: str | None
    vcpus: int
    vcpu_type: str | None
    vcpu_sig: str | None


@record
class _Signers:
    """The keys of a call, with their signatures where they were made elsewhere."""

    by_id: Signer
    by_author: Signer | None


def id_block(options: IdBlockOptions) -> int:
    """Print ID block and ID authentication for a digest; with ``--detached`` what to sign.

    Raises ``UsageError`` ``id-block-digest``, ``id-block-id``,
    ``id-block-svn``, ``snp-policy-*``, ``usage``; and the errors of
    ``troth.image.id_block`` and ``troth.signing.keys``.
    """
    digest = _exact(
        options.digest, layout.DIGEST_BYTES, code="id-block-digest", name="the launch digest"
    )
    policy = snp_policy.parse_hex(options.policy, where="--policy")
    block = _block(options, digest=digest, policy=policy, older=None)
    signers = _signers(options)
    _warn(block, signers)
    if _to_be_signed(options):
        if options.output is None:
            raise UsageError("usage", "--detached needs -o OUT for the files it writes")
        words = ["troth", "measure", "id-block", digest.hex()]
        return _write_to_sign(options, block, signers, words=words, output=options.output)
    auth = work.authenticate(block, signers.by_id, signers.by_author)
    if options.output is not None:
        for ending, data in (
            ("id-block", layout.encode_block(block)),
            ("id-auth", layout.encode_auth(auth)),
        ):
            with output_file.replaced(f"{options.output}.{ending}") as stream:
                stream.write(data)
    _print(block, auth, as_json=options.json)
    return 0


def sign(options: SignOptions) -> int:
    """Measure an IGVM file, sign its ID block and write it; with ``--detached`` what to sign.

    Raises what ``id_block`` does, ``UsageError`` ``id-block-policy`` where
    neither the file nor the options name a policy, ``vcpu-count``,
    ``vcpu-type``, ``launch-input``, ``launch-number``, ``BuildError``
    ``igvm-changed``, and ``FormatError`` ``igvm-*``.
    """
    signature = _vcpu_signature(options)
    given = (
        None if options.policy is None else snp_policy.parse_hex(options.policy, where="--policy")
    )
    signers = _signers(options)
    with _igvm(options.file) as file:
        said = work.carried(file)
        policy = said.policy if given is None else given
        if policy is None:
            raise UsageError(
                "id-block-policy",
                "the file has no GUEST_POLICY, so the launch has none to agree with",
                where=options.file,
                hint="--policy 0x30000 is the usual one, and is put into the file",
            )
        snp_policy.parse(policy, where=options.file)
        digest = _digest(file, policy, vcpus=options.vcpus, signature=signature)
        block = _block(options, digest=digest, policy=policy, older=said.block)
        for sentence in file.warnings:
            _note(sentence)
        _warn(block, signers)
        if _to_be_signed(options):
            words = ["troth", "igvm", "sign", options.file, "--vcpus", str(options.vcpus)]
            if options.vcpu_type is not None:
                words += ["--vcpu-type", options.vcpu_type]
            if options.vcpu_sig is not None:
                words += ["--vcpu-sig", options.vcpu_sig]
            return _write_to_sign(options, block, signers, words=words, output=options.output)
        auth = work.authenticate(block, signers.by_id, signers.by_author)
        with output_file.replaced(options.output) as stream:
            work.put(file, block, auth, stream=stream)
            stream.flush()
            written = open_(FileSource(stream.fileno(), where=options.output))
            again = _digest(written, policy, vcpus=options.vcpus, signature=signature)
            found = work.verified(written)
            if again != digest or found is None or found.block != block:
                raise BuildError(
                    "igvm-changed", "the file changed while it was signed", where=options.file
                )
    _print(block, auth, as_json=options.json)
    return 0


def _digest(file: IgvmFile, policy: int, *, vcpus: int, signature: int | None) -> bytes:
    """The launch digest of ``file``, with ``policy`` put into it where it has none."""
    with contextlib.ExitStack() as stack:
        if work.carried(file).policy is None:
            # What cannot be launched is not measured: the digest is that of the file to be.
            whole = stack.enter_context(tempfile.TemporaryFile())
            work.put_policy(file, policy, stream=whole)
            whole.flush()
            file = open_(FileSource(whole.fileno(), where=file.where))
        return igvm.measure(file, platform="sev-snp", vcpus=vcpus, vcpu_signature=signature).digest


def _block(options: CommonOptions, *, digest: bytes, policy: int, older: IdBlock | None) -> IdBlock:
    """The block to sign: what is given, else what the older block says, else zeros."""
    base = IdBlock(digest, policy) if older is None else older
    svn = base.guest_svn if options.svn is None else options.svn
    if not 0 <= svn < 1 << 32:
        raise UsageError("id-block-svn", f"--svn {svn}: possible are 0 to {(1 << 32) - 1}")
    ids = []
    for name, text, value in (
        ("--family-id", options.family_id, base.family_id),
        ("--image-id", options.image_id, base.image_id),
    ):
        ids.append(
            value if text is None else _exact(text, layout.ID_BYTES, code="id-block-id", name=name)
        )
    return IdBlock(digest, policy, svn, *ids)


def _signers(options: CommonOptions) -> _Signers:
    if options.author_signature is not None and options.author_key is None:
        raise UsageError("usage", "--author-signature is of use with --author-key only")
    by_author = None
    if options.author_key is not None:
        by_author = _signer(options.author_key, options.author_signature)
    return _Signers(_signer(options.id_key, options.id_signature), by_author)


def _signer(key_path: str, signature_path: str | None) -> Signer:
    key = keys.load(keys.read_file(key_path), where=key_path)
    work.point(key, where=key_path)
    signature = None if signature_path is None else keys.read_file(signature_path)
    return Signer(key, signature, key_path, signature_path or "")


def _to_be_signed(options: CommonOptions) -> bool:
    """Whether this is the first of the two steps: ``--detached`` and no signature by the ID key."""
    return options.detached and options.id_signature is None


def _warn(block: IdBlock, signers: _Signers) -> None:
    for sentence in snp_policy.warnings(snp_policy.parse(block.policy)):
        _note(sentence)
    author = signers.by_author
    if author is not None and keys.public_half(author.key) == keys.public_half(signers.by_id.key):
        _note("ID key and author key are one key: it vouches for itself, which says nothing more")


def _note(sentence: str) -> None:
    print(f"troth: warning: {sentence}", file=sys.stderr)


def _write_to_sign(
    options: CommonOptions,
    block: IdBlock,
    signers: _Signers,
    *,
    words: list[str],
    output: str,
) -> int:
    """The first step of signing elsewhere: write what to sign, say how to go on.

    The command that is printed names every value of the block, so that the
    second step makes the same bytes whatever the file's older block says.
    """
    block_bytes, key_bytes = work.to_sign(block, signers.by_id.key)
    wanted = [("id-block", block_bytes, "ID-KEY.pem")]
    words += ["--id-key", options.id_key, "--id-signature", f"{output}.id-block.sig"]
    if signers.by_author is not None and options.author_key is not None:
        signature = options.author_signature
        if signature is None:
            wanted.append(("id-key", key_bytes, "AUTHOR-KEY.pem"))
            signature = f"{output}.id-key.sig"
        words += ["--author-key", options.author_key, "--author-signature", signature]
    words += ["--policy", f"{block.policy:#x}", "--svn", str(block.guest_svn)]
    words += ["--family-id", block.family_id.hex(), "--image-id", block.image_id.hex()]
    words += ["-o", output]
    commands = []
    for ending, data, key in wanted:
        path = f"{output}.{ending}"
        with output_file.replaced(path) as stream:
            stream.write(data)
        commands.append(["openssl", "dgst", "-sha384", "-sign", key, "-out", f"{path}.sig", path])
    if options.json:
        tree = {**_tree(block, None), "sign": commands, "then": words}
        print(json.dumps(tree, indent=2))
        return 0
    _print_block(block)
    print("Sign with ECDSA P-384 and SHA-384 where the keys are:")
    for command in commands:
        print(f"  {shlex.join(command)}")
    print(f"and then:\n  {shlex.join(words)}")
    return 0


def _print(block: IdBlock, auth: IdAuth, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_tree(block, auth), indent=2))
        return
    _print_block(block)
    print(f"ID key digest:      {layout.key_digest(auth.id_key).hex()}")
    author = "none" if auth.author_key is None else layout.key_digest(auth.author_key).hex()
    print(f"Author key digest:  {author}")
    print(f"For QEMU:           {work.qemu_options(block, auth)}")


def _print_block(block: IdBlock) -> None:
    names = ", ".join(snp_policy.names(snp_policy.parse(block.policy))) or "no bits set"
    print(f"Launch digest:      {block.launch_digest.hex()}")
    print(f"Guest policy:       {block.policy:#x} ({names})")
    print(f"Guest SVN:          {block.guest_svn}")
    print(f"Family ID:          {block.family_id.hex()}")
    print(f"Image ID:           {block.image_id.hex()}")


def _tree(block: IdBlock, auth: IdAuth | None) -> dict[str, object]:
    tree: dict[str, object] = {
        "launch_digest": block.launch_digest.hex(),
        "policy": f"{block.policy:#x}",
        "guest_svn": block.guest_svn,
        "family_id": block.family_id.hex(),
        "image_id": block.image_id.hex(),
        "id_block": b64encode(layout.encode_block(block)).decode(),
    }
    if auth is not None:
        author = auth.author_key
        tree |= {
            "id_auth": b64encode(layout.encode_auth(auth)).decode(),
            "author_key_enabled": author is not None,
            "id_key_digest": layout.key_digest(auth.id_key).hex(),
            "author_key_digest": None if author is None else layout.key_digest(author).hex(),
            "qemu": work.qemu_options(block, auth),
        }
    return tree


def _exact(text: str, size_bytes: int, *, code: str, name: str) -> bytes:
    if len(text) != 2 * size_bytes or not set(text) <= _HEX_DIGITS:
        raise UsageError(code, f"{name} must be {size_bytes} bytes in hex")
    return bytes.fromhex(text)


def _vcpu_signature(options: SignOptions) -> int | None:
    if not 1 <= options.vcpus <= vcpu.MAX_VCPUS:
        raise UsageError(
            "vcpu-count", f"--vcpus {options.vcpus}: possible are 1 to {vcpu.MAX_VCPUS}"
        )
    signature = vcpu_options.signature(options.vcpu_type, options.vcpu_sig)
    if signature is None and options.vcpus > 1:
        raise UsageError(
            "vcpu-type",
            "--vcpu-type or --vcpu-sig is needed: the state of further processors shows their"
            " model",
            hint=f"the types are {', '.join(vcpu.SIGNATURES)}",
        )
    return signature


@contextlib.contextmanager
def _igvm(path: str) -> Iterator[IgvmFile]:
    with open(path, "rb", opener=opener) as file:
        yield open_(FileSource(file.fileno(), where=path))
