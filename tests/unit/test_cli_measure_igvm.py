# SPDX-License-Identifier: Apache-2.0
"""``troth measure igvm``: igvmmeasure's output to the byte, notes apart, statuses."""

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest

import made_igvm as made
from troth.cli.main import main
from troth.measure.vcpu import reset_vmsa

VECTOR = Path(
    os.environ.get("TROTH_VECTORS", Path(__file__).parents[3] / "shared/vectors")
).joinpath("measure/igvm/tooling_bzimage_x64.igvm")
DIGEST = (
    "375CC1FE98C68B5613314A9719A2235D4EF3D400E1E34D87"
    "BAEA292C8575957138620DE77C212BC4EEDE9DC6A37E4575"
)
RULE = "=" * 111


@pytest.fixture
def vector():
    if not VECTOR.exists():
        pytest.skip(f"no vectors at {VECTOR} (set TROTH_VECTORS)")
    return str(VECTOR)


@pytest.fixture
def run(capsys):
    def call(*words):
        status = main(["measure", "igvm", *map(str, words)])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def file(tmp_path, data):
    path = tmp_path / "a.igvm"
    path.write_bytes(data)
    return path


@pytest.mark.vectors
def test_igvmmeasures_form(run, vector):
    status, out, err = run(vector)
    assert status == 0
    assert out == f"\n{RULE}\nigvmmeasure '{vector}'\nLaunch Digest: {DIGEST}\n{RULE}\n\n"
    assert "not measured: parameter area 0 at 0x802000, 1 page: the host writes VP_COUNT" in err
    assert "warning: headers are padded" in err


@pytest.mark.vectors
def test_bare(run, vector):
    assert run(vector, "--bare") == (0, DIGEST + "\n", "")
    assert run("-b", "-p", "sev-snp", vector) == (0, DIGEST + "\n", "")


@pytest.mark.vectors
def test_verbose(run, vector):
    status, out, _ = run("-v", "-b", vector)
    assert status == 0
    assert out == (
        "gpa 0xa0000 len 0x160000 (Normal page)\n"
        "gpa 0x800000 len 0x1000 (Cpuid page)\n"
        "gpa 0x801000 len 0x1000 (Secrets page)\n"
        "gpa 0x802000 len 0x1000 (Unmeasured page)\n"
        "gpa 0x803000 len 0x1000 (VMSA page)\n"
        "gpa 0x1a10000 len 0x4000 (Normal page)\n"
        "gpa 0x3467000 len 0xe000 (Normal page)\n"
        f"{DIGEST}\n"
    )


@pytest.mark.vectors
def test_an_id_block_for_another_launch(run, vector):
    status, out, err = run("-n", vector)
    assert status == 1
    assert "Launch Digest: " in out  # printed before the check, as igvmmeasure does
    assert DIGEST not in out
    assert "igvm-id-block-digest" in err
    assert DIGEST in err
    status, out, err = run("-n", "-b", "--ignore-idblock", vector)
    assert (status, err) == (0, "")
    assert out != DIGEST + "\n"


@pytest.mark.vectors
def test_check_kvm_prints_all(run, vector):
    status, out, err = run("-c", vector)
    assert (status, out) == (1, "")
    for rule in ("vmsa-gpa", "vmsa-cr0", "order"):
        assert f"igvm-kvm-{rule}" in err
    assert "(18 times)" in err
    status, out, _ = run("-c", "--json", vector)
    tree = json.loads(out)
    assert status == 1
    assert tree["digest"] == DIGEST.lower()
    assert {item["code"] for item in tree["kvm"]} > {"igvm-kvm-vmsa-gpa", "igvm-kvm-order"}


def test_a_good_file(run, tmp_path):
    path = file(tmp_path, made.linux(4))
    status, out, err = run("-c", path)
    assert status == 0
    assert out.count("\n") == 6
    assert "HOST_DATA" in err
    tree = json.loads(run(path, "--json", "-c", "--vcpus", 2, "--vcpu-type", "EPYC-v4")[1])
    assert tree["kvm"] == []
    assert tree["policy"] == "0x30000"
    assert tree["id_block"] is None
    assert [item["in_file"] for item in tree["processors"]] == [True, False]
    assert tree["runs"][0] == {"kind": "Cpuid", "gpa": "0x1000", "pages": 1}
    assert any("secrets page" in line for line in tree["not_measured"])
    one, two = (
        run("-b", path, "--vcpus", number, "--vcpu-type", "EPYC-v4")[1] for number in (1, 2)
    )
    assert one == run("-b", path)[1]
    assert two.strip().lower() == tree["digest"]
    assert two != one


def test_sev(run, tmp_path):
    headers = [made.platform(1, made.SEV), made.page(0, 0)]
    path = file(tmp_path, made.made(headers, bytes(4096)))
    status, out, _ = run("-b", "-p", "sev", path)
    zeros = "AD7FACB2586FC6E966C004D7D1D16B024F5805FF7CB47C7A85DABD8B48892CA7"
    assert (status, out) == (0, zeros + "\n")
    status, out, err = run("-p", "sev-es", path)
    assert (status, out) == (1, "")
    assert "igvm-platform-absent" in err


def test_no_policy(run, tmp_path):
    path = file(tmp_path, made.made([made.platform(), made.page(0, 0)], bytes(4096)))
    status, out, err = run(path)
    assert (status, out) == (1, "")
    assert "igvm-policy-absent" in err
    assert run("--compat", "igvmmeasure", "-b", path)[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["--bare", "--json"], 2, "usage"),
        (["--vcpus", "2"], 2, "vcpu-type"),
        (["--vcpus", "2", "--vcpu-type", "Pentium"], 2, "vcpu-type"),
        (["--vcpus", "0", "--vcpu-type", "EPYC"], 2, "vcpu-count"),
        (["--vcpus", "2", "--vcpu-sig", "0x100000000"], 2, "launch-number"),
        (["--vcpu-sig", "1", "--vcpu-type", "EPYC"], 2, "launch-input"),
        (["--platform", "tdx"], 2, "usage"),
        (["--compat", "other"], 2, "usage"),
    ],
)
def test_wrong_words(run, tmp_path, words, status, code):
    found, out, err = run(file(tmp_path, made.linux(1)), *words)
    assert (found, out) == (status, "")
    assert f"[{code}]" in err


def test_wrong_files(run, tmp_path):
    assert run(tmp_path / "absent")[0] == 1
    status, _, err = run(file(tmp_path, b"\x7fELF" + bytes(100)))
    assert status == 1
    assert "igvm-magic" in err
    status, _, err = run(file(tmp_path, b""))
    assert status == 1
    assert "igvm-magic" in err


def test_processors_by_signature(run, tmp_path):
    """For -cpu host, whose stepping no name has; EPYC-v4 is family 23, model 1, stepping 2."""
    path = file(tmp_path, made.linux())

    def digest(*words):
        status, out, _ = run("-b", path, "--vcpus", 2, *words)
        assert status == 0
        return out

    named = digest("--vcpu-type", "EPYC-v4")
    assert digest("--vcpu-sig", "0x800f12") == digest("--vcpu-sig", "8392466") == named
    assert digest("--vcpu-sig", "0x800f13") != named
    # KVM adds the state with this signature in RDX, at its own address, after the file's own.
    alone = bytes.fromhex(run("-b", path)[1])
    page = reset_vmsa(0xFFFFFFF0, signature=0x800F13, features=1, bsp=False)
    assert page[0x310:0x318] == (0x800F13).to_bytes(8, "little")
    content = hashlib.sha384(page).digest()
    info = alone + content + struct.pack("<HB5xQ", 0x70, 2, 0xFFFFFFFFF000)
    assert digest("--vcpu-sig", "0x800f13").strip() == hashlib.sha384(info).hexdigest().upper()
