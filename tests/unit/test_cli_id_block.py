# SPDX-License-Identifier: Apache-2.0
"""``troth measure id-block`` and ``troth igvm sign``: words, files and statuses."""

import base64
import io
import json
import os
import shlex
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from troth.abi import id_block as layout
from troth.abi.igvm import headers as h
from troth.abi.igvm.file import AARCH64, BytesSource, open_
from troth.abi.igvm.write import write
from troth.cli.main import main
from troth.errors import FormatError
from troth.image import id_block as work
from troth.measure import igvm, vcpu
from troth.record import replace
from troth.signing import keys

VECTORS = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/igvm")

#: The vectors' README: this digest with SVN 0 and policy 0x30000 gives this ID block.
DIGEST = (
    "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d89"
    "66068e615bb99efd13d214b35c231715b38e263dc6059745"
)
BLOCK = (
    "oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdFAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA"
)
FAMILY, IMAGE = "66" * 16, "69" * 16

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="needs openssl (openssl) as oracle"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with the keys of an owner and of an author, and nothing else in the way."""
    monkeypatch.chdir(tmp_path)
    for name, number in (("ID-KEY", 2001), ("AUTHOR-KEY", 2002), ("OTHER-KEY", 2003)):
        key = ec.derive_private_key(number, ec.SECP384R1())
        Path(f"{name}.pem").write_bytes(secret_pem(key))
        Path(f"{name}.pub").write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    return tmp_path


def secret_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def said(capsys, *words, status=0):
    assert main(list(words)) == status
    return capsys.readouterr()


def tree(capsys, *words):
    return json.loads(said(capsys, *words, "--json").out)


def refused(capsys, code, *words, status):
    before = sorted(Path().iterdir())
    error = said(capsys, *words, status=status).err
    assert f"error [{code}]" in error, error
    assert sorted(Path().iterdir()) == before
    return error


# --- measure id-block -----------------------------------------------------------------------

MEASURE = ("measure", "id-block", DIGEST, "--id-key", "ID-KEY.pem")
BOTH = (*MEASURE, "--author-key", "AUTHOR-KEY.pem")


def test_values_for_qemu(folder, capsys):
    made = tree(capsys, *BOTH)
    assert made["id_block"] == BLOCK
    auth = layout.decode_auth(base64.b64decode(made["id_auth"]))
    block = layout.decode_block(base64.b64decode(BLOCK))
    work.verify(block, auth)
    assert made["id_key_digest"] == layout.key_digest(auth.id_key).hex()
    assert made["author_key_digest"] == layout.key_digest(auth.author_key).hex()
    assert made["author_key_enabled"] is True
    assert (made["launch_digest"], made["policy"], made["guest_svn"]) == (DIGEST, "0x30000", 0)
    text = said(capsys, *BOTH)
    assert text.err == ""
    line = f"id-block={BLOCK},id-auth={made['id_auth']},author-key-enabled=on"
    assert made["qemu"] == line
    assert f"For QEMU:           {line}\n" in text.out
    assert f"ID key digest:      {made['id_key_digest']}\n" in text.out
    assert f"Author key digest:  {made['author_key_digest']}\n" in text.out
    assert "Guest policy:       0x30000 (smt)\n" in text.out


def test_without_author_key(folder, capsys):
    made = tree(capsys, *MEASURE)
    assert made["author_key_enabled"] is False
    assert made["author_key_digest"] is None
    assert made["qemu"].endswith(",author-key-enabled=off")
    assert "Author key digest:  none\n" in said(capsys, *MEASURE).out


def test_every_value_is_in_the_block(folder, capsys):
    words = ("--svn", "4294967295", "--policy", "b0000", "--family-id", FAMILY.upper())
    made = tree(capsys, *MEASURE, *words, "--image-id", IMAGE, "-o", "out")
    block = Path("out.id-block").read_bytes()
    assert block == base64.b64decode(made["id_block"])
    expected = bytes.fromhex(DIGEST + FAMILY + IMAGE) + struct.pack("<IIQ", 1, 2**32 - 1, 0xB0000)
    assert block == expected
    auth = Path("out.id-auth").read_bytes()
    assert auth == base64.b64decode(made["id_auth"])
    assert Path("out.id-block").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert len(list(folder.iterdir())) == 6 + 2


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_dangerous_is_said(folder, capsys):
    assert said(capsys, *BOTH, "--policy", "0x30000").err == ""
    assert "DEBUG" in said(capsys, *MEASURE, "--policy", "0xb0000").err
    assert "MIGRATE_MA" in said(capsys, *MEASURE, "--policy", "0x70000").err
    for author in ("ID-KEY.pem", "ID-KEY.pub"):
        words = ("--author-key", author, "--detached", "-o", "x")
        assert "vouches for itself" in said(capsys, *MEASURE, *words).err


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (("--svn", "4294967296"), "id-block-svn", 2),
        (("--svn", "-1"), "id-block-svn", 2),
        (("--family-id", "00"), "id-block-id", 2),
        (("--image-id", "g" * 32), "id-block-id", 2),
        (("--image-id", "0x" + "0" * 30), "id-block-id", 2),
        (("--policy", "0x10000"), "snp-policy-bit-17", 2),
        (("--policy", "0x430000000"), "snp-policy-bit-17", 2),
        (("--policy", "0x100030000"), "snp-policy-reserved", 2),
        (("--policy", "many"), "snp-policy-syntax", 2),
        (("--detached",), "usage", 2),
        (("--author-signature", "s"), "usage", 2),
        (("--author-key", "none.pem"), "key-file", 2),
        (("--author-key", "AUTHOR-KEY.pub"), "id-block-unsigned", 2),
        (("--id-signature", "ID-KEY.pem"), "signature-format", 1),
        (("-o", "none/out"), "output-file", 2),
    ],
)
def test_refused_words(folder, capsys, words, code, status):
    refused(capsys, code, *MEASURE, *words, status=status)


@pytest.mark.parametrize("digest", ["", "00", DIGEST[:-1], DIGEST + "00", "g" * 96, " " + DIGEST])
def test_refused_digests(folder, capsys, digest):
    words = ("measure", "id-block", digest, "--id-key", "ID-KEY.pem")
    refused(capsys, "id-block-digest", *words, status=2)


def test_refused_keys(folder, capsys):
    made = {
        "ed.pem": secret_pem(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))),
        "p256.pem": secret_pem(ec.derive_private_key(5, ec.SECP256R1())),
        "garbage": b"garbage",
        "two.pem": Path("ID-KEY.pem").read_bytes() * 2,
    }
    for name, data in made.items():
        Path(name).write_bytes(data)
    for name, code, status in (
        ("ed.pem", "key-algorithm", 1),
        ("p256.pem", "key-curve", 1),
        ("garbage", "key-format", 1),
        ("two.pem", "key-several", 1),
        ("none", "key-file", 2),
        ("ID-KEY.pub", "id-block-unsigned", 2),
    ):
        words = ("measure", "id-block", DIGEST, "--id-key", name)
        error = refused(capsys, code, *words, status=status)
        assert f"where: {name}" in error


# --- igvm sign ------------------------------------------------------------------------------

SNP, OTHER = 1, 2


def page(byte):
    return bytes([byte]) * 4096


def headers(*, policy=0x30000, block=None, policy_mask=SNP):
    """A small file: pages with and without data, CPUID, secrets, the first processor last."""
    made = [
        (h.SupportedPlatform(SNP, 0, h.SEV_SNP), b""),
        (h.SupportedPlatform(OTHER, 0, h.SEV_ES), b""),
    ]
    if policy is not None:
        made.append((h.GuestPolicy(policy, policy_mask), b""))
    made += [
        (h.RequiredMemory(0, SNP | OTHER, 0x10000), b""),
        (h.ParameterArea(4096, 0), b""),
        (h.PageData(0x1000, SNP | OTHER), page(1)),
        (h.PageData(0x2000, SNP), b""),
        (h.PageData(0x3000, SNP), page(1)),
        (h.PageData(0x4000, SNP, 0, 0, h.SECRETS), b""),
        (h.PageData(0x5000, SNP, 0, 0, h.CPUID_DATA), page(2)),
        (h.Usage(0x30C, 0, 0), b""),
        (h.ParameterInsert(0x6000, SNP | OTHER, 0), b""),
        (h.VpContext(0xFFFF_FFFF_F000, SNP, 0), page(3)),
    ]
    if block is not None:
        made.insert(6, (block, b""))
    return made


def file_of(made, **options):
    stream = io.BytesIO()
    write(made, stream=stream, **({"version": 1} | options))
    return stream.getvalue()


def opened(path):
    return open_(BytesSource(Path(path).read_bytes(), where=str(path)))


def content(file):
    """What the file says: its headers without their places in the file, and their data."""
    return [
        (replace(header, file_offset=0) if hasattr(header, "file_offset") else header,
         file.data(header))
        for header in file.headers()
    ]  # fmt: skip


SIGN = ("igvm", "sign", "a.igvm", "--id-key", "ID-KEY.pem", "-o", "b.igvm")


@pytest.fixture
def file(folder):
    Path("a.igvm").write_bytes(file_of(headers()))
    return folder


def signed_block(path, *, policy):
    """The ID block of the file, which must be its last header, verified."""
    assert policies(path) == [h.GuestPolicy(policy, SNP)]
    last = list(opened(path).headers())[-1]
    found = layout.decode_igvm(last.body, policy=policy)
    work.verify(found.block, found.auth)
    assert work.verified(opened(path)) == found
    return found


def test_a_signed_file(file, capsys):
    made = tree(capsys, *SIGN, "--author-key", "AUTHOR-KEY.pem", "--svn", "3", "--image-id", IMAGE)
    before, after = opened("a.igvm"), opened("b.igvm")
    assert content(after)[:-1] == content(before)
    found = signed_block("b.igvm", policy=0x30000)
    assert found.mask == SNP
    assert found.block == layout.IdBlock(
        igvm.measure(before, platform="sev-snp").digest, 0x30000, 3, bytes(16), bytes.fromhex(IMAGE)
    )
    again = igvm.measure(after, platform="sev-snp")
    assert again.digest == again.id_block_digest == found.block.launch_digest
    assert made["launch_digest"] == found.block.launch_digest.hex()
    assert base64.b64decode(made["id_block"]) == layout.encode_block(found.block)
    assert base64.b64decode(made["id_auth"]) == layout.encode_auth(found.auth)
    assert found.auth.author_key is not None
    assert not any(name.name.startswith(".") for name in file.iterdir())


def test_the_same_words_make_the_same_bytes(file, capsys):
    said(capsys, *SIGN)
    first = Path("b.igvm").read_bytes()
    said(capsys, *SIGN)
    assert Path("b.igvm").read_bytes() == first
    said(capsys, "igvm", "sign", "b.igvm", "--id-key", "ID-KEY.pem", "-o", "b.igvm")
    assert Path("b.igvm").read_bytes() == first


@pytest.mark.parametrize("version", [1, 2])
def test_the_version_stays(folder, capsys, version):
    Path("a.igvm").write_bytes(file_of(headers(), version=version))
    said(capsys, *SIGN)
    assert opened("b.igvm").version == version
    data = Path("b.igvm").read_bytes()
    assert struct.unpack_from("<I", data, 4) == (version,)
    if version == 2:
        assert struct.unpack_from("<II", data, 24) == (0, 4096)


def test_no_other_architecture_has_snp(folder, capsys):
    Path("a.igvm").write_bytes(file_of(headers(), version=2, architecture=AARCH64))
    refused(capsys, "igvm-architecture", *SIGN, status=1)
    # What is put into a file does not depend on who can measure it.
    stream = io.BytesIO()
    work.put_policy(opened("a.igvm"), 0x20000, stream=stream)
    changed = open_(BytesSource(stream.getvalue()))
    assert (changed.version, changed.architecture) == (2, AARCH64)
    assert content(changed)[2] == (h.GuestPolicy(0x20000, SNP), b"")


def old_block(**changes):
    block = layout.IdBlock(bytes(48), 0, 41, bytes.fromhex(FAMILY), bytes.fromhex(IMAGE))
    auth = layout.IdAuth(layout.Point(1, 2), layout.Signature(3, 4))
    return h.SnpIdBlock(
        layout.encode_igvm(layout.IgvmIdBlock(SNP, replace(block, **changes), auth))
    )


def test_an_older_block_is_replaced_and_its_values_kept(folder, capsys):
    Path("a.igvm").write_bytes(file_of(headers(block=old_block())))
    said(capsys, *SIGN)
    assert content(opened("b.igvm"))[:-1] == [row for row in headers_read() if row]
    found = signed_block("b.igvm", policy=0x30000).block
    assert (found.guest_svn, found.family_id.hex(), found.image_id.hex()) == (41, FAMILY, IMAGE)
    said(capsys, *SIGN, "--svn", "0", "--family-id", "00" * 16, "--image-id", "11" * 16)
    found = signed_block("b.igvm", policy=0x30000).block
    assert (found.guest_svn, found.family_id, found.image_id) == (0, bytes(16), b"\x11" * 16)


def headers_read():
    return content(open_(BytesSource(file_of(headers()))))


def test_an_older_block_with_hopeless_keys_is_replaced(folder, capsys):
    body = bytearray(old_block().body)
    body[96:] = bytes(600)
    Path("a.igvm").write_bytes(file_of(headers(block=h.SnpIdBlock(bytes(body)))))
    said(capsys, *SIGN)
    assert signed_block("b.igvm", policy=0x30000).block.guest_svn == 41


def policies(path):
    return [item for item in opened(path).headers() if isinstance(item, h.GuestPolicy)]


def test_policy_of_file_and_block_agree(file, capsys):
    said(capsys, *SIGN, "--policy", "0x20000")
    assert policies("b.igvm") == [h.GuestPolicy(0x20000, SNP)]
    assert signed_block("b.igvm", policy=0x20000)
    others = [
        [row for row in content(opened(name))[: 13] if not isinstance(row[0], h.GuestPolicy)]
        for name in ("a.igvm", "b.igvm")
    ]  # fmt: skip
    assert others[0] == others[1]


def test_a_policy_for_several_platforms_changes_for_snp_alone(folder, capsys):
    Path("a.igvm").write_bytes(file_of(headers(policy_mask=SNP | OTHER)))
    said(capsys, *SIGN)
    assert policies("b.igvm") == [h.GuestPolicy(0x30000, SNP | OTHER)]
    said(capsys, *SIGN, "--policy", "0x20000")
    assert policies("b.igvm") == [h.GuestPolicy(0x30000, OTHER), h.GuestPolicy(0x20000, SNP)]


def test_a_file_without_policy(folder, capsys):
    Path("a.igvm").write_bytes(file_of(headers(policy=None)))
    refused(capsys, "id-block-policy", *SIGN, status=2)
    said(capsys, *SIGN, "--policy", "0x30000")
    assert content(opened("b.igvm"))[:-1] == headers_read()
    Path("a.igvm").write_bytes(file_of(headers(policy_mask=OTHER)))
    refused(capsys, "id-block-policy", *SIGN, status=2)
    said(capsys, *SIGN, "--policy", "0x20000")
    assert policies("b.igvm") == [h.GuestPolicy(0x20000, SNP), h.GuestPolicy(0x30000, OTHER)]


def test_the_files_own_policy_is_looked_at(folder, capsys):
    Path("a.igvm").write_bytes(file_of(headers(policy=0xB0000)))
    assert "DEBUG" in said(capsys, *SIGN).err
    Path("a.igvm").write_bytes(file_of(headers(policy=0x10000)))
    assert "a.igvm" in refused(capsys, "snp-policy-bit-17", *SIGN, status=1)


def test_further_processors_are_in_the_digest(file, capsys):
    alone = tree(capsys, *SIGN)["launch_digest"]
    refused(capsys, "vcpu-type", *SIGN, "--vcpus", "2", status=2)
    refused(capsys, "vcpu-type", *SIGN, "--vcpus", "2", "--vcpu-type", "Z80", status=2)
    for count in ("0", "513"):
        refused(capsys, "vcpu-count", *SIGN, "--vcpus", count, status=2)
    two = tree(capsys, *SIGN, "--vcpus", "2", "--vcpu-type", "EPYC-v4")["launch_digest"]
    assert tree(capsys, *SIGN, "--vcpus", "2", "--vcpu-sig", "0x800F12")["launch_digest"] == two
    expected = igvm.measure(
        opened("a.igvm"), platform="sev-snp", vcpus=2, vcpu_signature=vcpu.SIGNATURES["EPYC-v4"]
    )
    assert alone != two == expected.digest.hex()
    assert signed_block("b.igvm", policy=0x30000).block.launch_digest.hex() == two


def test_a_file_that_changes_while_it_is_signed(file, capsys, monkeypatch):
    """What was measured is what is written, or nothing is."""
    measure = igvm.measure
    found = opened("a.igvm")
    place = next(item.file_offset for item in found.headers() if isinstance(item, h.PageData))

    def measure_then_change(*arguments, **options):
        result = measure(*arguments, **options)
        with open("a.igvm", "r+b") as stream:
            stream.seek(place)
            stream.write(b"changed")
        return result

    monkeypatch.setattr(igvm, "measure", measure_then_change)
    refused(capsys, "igvm-changed", *SIGN, status=1)


def test_refused_files(folder, capsys):
    Path("a.igvm").write_bytes(file_of([row for row in headers() if for_other(row[0])]))
    refused(capsys, "id-block-platform", *SIGN, status=1)
    Path("a.igvm").write_bytes(file_of(headers())[:-1])
    refused(capsys, "igvm-size", *SIGN, status=1)
    Path("a.igvm").write_bytes(b"garbage")
    refused(capsys, "igvm-magic", *SIGN, status=1)
    Path("a.igvm").unlink()
    refused(capsys, "os-error", *SIGN, status=1)


def for_other(header):
    """Whether the header stays in a file for the other platform alone."""
    mask = getattr(header, "compatibility_mask", OTHER)
    return bool(mask & OTHER)


def test_a_signature_of_another_key_or_file(file, capsys):
    said(capsys, *SIGN, "--detached")
    block = Path("b.igvm.id-block").read_bytes()
    signature = keys.load_private(Path("ID-KEY.pem").read_bytes()).sign(block)
    Path("good").write_bytes(signature)
    by_public = ("igvm", "sign", "a.igvm", "--id-key", "ID-KEY.pub", "--id-signature", "good")
    said(capsys, *by_public, "-o", "c.igvm")
    assert signed_block("c.igvm", policy=0x30000)
    said(capsys, *by_public, "--detached", "-o", "d.igvm")
    assert Path("c.igvm").read_bytes() == Path("d.igvm").read_bytes()
    for words in (("--svn", "1"), ("--policy", "0x20000"), ("--family-id", FAMILY)):
        error = refused(capsys, "id-block-signature", *by_public, *words, "-o", "e", status=1)
        assert "where: good" in error
    other = ("igvm", "sign", "a.igvm", "--id-key", "OTHER-KEY.pub", "--id-signature", "good")
    refused(capsys, "id-block-signature", *other, "-o", "e", status=1)


def test_a_block_in_a_file_is_verified(file, capsys):
    assert work.verified(opened("a.igvm")) is None
    said(capsys, *SIGN, "--author-key", "AUTHOR-KEY.pem")
    found = signed_block("b.igvm", policy=0x30000)
    body = layout.encode_igvm(found)
    swapped = layout.IdAuth(
        found.auth.id_key, found.auth.block_signature, found.auth.author_key,
        found.auth.block_signature,
    )  # fmt: skip
    for changed, code in (
        (layout.encode_igvm(replace(found, block=replace(found.block, guest_svn=9))), "signature"),
        (layout.encode_igvm(replace(found, auth=swapped)), "signature"),
        (body[:4] + b"\0" + body[5:], "author"),
    ):
        Path("c.igvm").write_bytes(file_of(headers(block=h.SnpIdBlock(changed))))
        with pytest.raises(FormatError) as caught:
            work.verified(opened("c.igvm"))
        assert caught.value.code == f"id-block-{code}"
    Path("c.igvm").write_bytes(file_of(headers(policy=0x20000, block=h.SnpIdBlock(body))))
    with pytest.raises(FormatError) as caught:
        work.verified(opened("c.igvm"))
    assert caught.value.code == "id-block-signature"


# --- signed elsewhere, with openssl ---------------------------------------------------------


def follow(printed, capsys):
    """Run the commands that were printed, those of openssl and then troth's own."""
    *commands, last = [line[2:] for line in printed.splitlines() if line.startswith("  ")]
    for command in commands:
        assert command.startswith("openssl ")
        subprocess.run(shlex.split(command), check=True, capture_output=True)
    assert last.startswith("troth ")
    said(capsys, *shlex.split(last)[1:])
    return len(commands)


@pytest.mark.tool
@needs_openssl
@pytest.mark.parametrize("author", [False, True])
def test_detached_igvm(folder, capsys, author):
    Path("a b.igvm").write_bytes(file_of(headers(block=old_block())))
    words = ["igvm", "sign", "a b.igvm", "--policy", "0x20000", "--id-key", "ID-KEY.pub"]
    words += ["--author-key", "AUTHOR-KEY.pub"] * author
    words += ["--vcpus", "3", "--vcpu-type", "EPYC-Milan", "--image-id", "77" * 16, "-o", "out"]
    printed = said(capsys, *words, "--detached").out
    assert not Path("out").exists()
    assert len(Path("out.id-block").read_bytes()) == 96
    assert Path("out.id-key").exists() == author
    assert follow(printed, capsys) == 1 + author
    found = signed_block("out", policy=0x20000)
    assert layout.encode_block(found.block) == Path("out.id-block").read_bytes()
    assert (found.block.guest_svn, found.block.family_id.hex()) == (41, FAMILY)
    assert (found.auth.author_key is not None) == author
    if author:
        assert layout.encode_key(found.auth.id_key) == Path("out.id-key").read_bytes()
    # Signed here in one step, all but the signatures is the same.
    here = [word.replace(".pub", ".pem").replace("out", "here") for word in words]
    said(capsys, *here)
    assert signed_block("here", policy=0x20000).block == found.block
    assert content(opened("here"))[:-1] == content(opened("out"))[:-1]


@pytest.mark.tool
@needs_openssl
def test_detached_for_direct_boot(folder, capsys):
    words = ["measure", "id-block", DIGEST, "--id-key", "ID-KEY.pub", "--svn", "9"]
    words += ["--author-key", "AUTHOR-KEY.pub", "-o", "out", "--detached"]
    assert follow(said(capsys, *words).out, capsys) == 2
    block = layout.decode_block(Path("out.id-block").read_bytes())
    assert (block.launch_digest.hex(), block.guest_svn) == (DIGEST, 9)
    work.verify(block, layout.decode_auth(Path("out.id-auth").read_bytes()))
    # The author vouches once: the next image needs the ID key's signature only.
    again = ["measure", "id-block", DIGEST, "--id-key", "ID-KEY.pem", "--svn", "10"]
    again += ["--author-key", "AUTHOR-KEY.pub", "--author-signature", "out.id-key.sig"]
    assert tree(capsys, *again)["author_key_enabled"] is True
    step = tree(capsys, *again, "--detached", "-o", "next")
    assert [command[-1] for command in step["sign"]] == ["next.id-block"]
    assert step["then"][:3] == ["troth", "measure", "id-block"]


# --- a file of another builder --------------------------------------------------------------


@pytest.mark.vectors
def test_a_file_of_igvm_tooling(folder, capsys):
    path = VECTORS / "tooling_bzimage_x64.igvm"
    if not path.exists():
        pytest.skip(f"no vectors at {VECTORS} (set TROTH_VECTORS)")
    shutil.copyfile(path, "a.igvm")
    before = list(opened("a.igvm").headers())
    (old,) = [item for item in before if isinstance(item, h.SnpIdBlock)]
    said(capsys, *SIGN)
    found = signed_block("b.igvm", policy=0x3001F)
    # What its own builder measured is what we measured and signed.
    assert found.block == layout.igvm_claims(old.body, policy=0x3001F)
    assert content(opened("b.igvm"))[:-1] == [
        row for row in content(opened("a.igvm")) if not isinstance(row[0], h.SnpIdBlock)
    ]
