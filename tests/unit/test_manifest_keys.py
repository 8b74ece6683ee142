# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes and brokers in troth.toml: defaults, every refusal and its line."""

import base64
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.documents.policy_keys import Broker, Encrypted
from troth.errors import ManifestError
from troth.image.inputs import manifest, manifest_keys

#: Ends in line 11; an instance configuration brings addresses along.
BASE = """\
[image]
name = "demo"
kernel = "debian:linux-image-6.12-cloud-amd64"
[root]
source = "rootfs/"
[tee]
snp = "simulated"
[instance]
brokers = ["keys"]
[network]
method = "dhcp"
"""
BROKER = f'[[broker]]\nname = "keys"\nspki = ["{"ab" * 32}"]\n'
VOLUME = (
    '[[volume]]\nname = "data"\nformat = "headerless"\nmount = "/var/lib/app"\n'
    'key = "kbs:///default/disk-key/data"\n'
)
GOOD = BASE + BROKER + VOLUME
RANDOM = VOLUME.replace("kbs:///default/disk-key/data", "random:")
FILE = VOLUME.replace("kbs:///default/disk-key/data", "file:data") + 'key_file = "data.key"\n'
SNP = VOLUME.replace("kbs:///default/disk-key/data", "snp:")
#: Lines of the two headers.
AT_BROKER, AT_VOLUME = 12, 15

CERTIFICATE = b"0\x03\x02\x01\x07"
PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    + base64.b64encode(CERTIFICATE).decode()
    + "\n-----END CERTIFICATE-----\n"
)


def read(text, base="/src"):
    return manifest.parse(text.encode(), Path(base) / "troth.toml")


def refused(text, base="/src"):
    with pytest.raises(ManifestError) as caught:
        read(text, base)
    return caught.value


def root(line):
    """``GOOD`` with one more line in [root], which stands in line 6."""
    return GOOD.replace("[tee]", f"{line}\n[tee]")


# --- what is taken ---------------------------------------------------------------------------


def test_the_smallest_volume_and_its_defaults():
    found = read(GOOD)
    assert found.encrypted == (
        Encrypted(
            name="data",
            device="serial:data",
            mount="/var/lib/app",
            file_system="ext4",
            format="headerless",
            integrity="hmac",
            key="kbs:///default/disk-key/data",
            uuid=found.encrypted[0].uuid,
            blank="refuse",
            executable=False,
        ),
    )
    assert found.brokers == (
        Broker(
            name="keys",
            protocol="troth",
            addresses=(),
            spki=("ab" * 32,),
            ca=(),
            server_name="",
            spiffe_id="",
            not_before=0,
            trust_domain="",
        ),
    )
    assert found.key_files == ()
    assert found.volumes == ()


def test_every_key_of_a_volume():
    text = BASE + BROKER + VOLUME.replace("headerless", "luks2") + (
        'device = "PARTLABEL:data"\nintegrity = "aes-gcm"\nexecutable = true\n'
        'uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"\n'
    )  # fmt: skip
    (found,) = read(text).encrypted
    assert (found.format, found.integrity, found.executable) == ("luks2", "aes-gcm", True)
    assert found.device == "PARTLABEL:data"
    assert found.uuid == "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    assert found.profile == "luks2/aes-gcm/4096"
    assert found.map_name == "troth-data"


def test_a_volumes_id_comes_of_image_and_name():
    """So the next version of an image knows its volumes, and no two images share one."""
    one = read(GOOD).encrypted[0].uuid
    assert read(GOOD.replace("[tee]", 'overlay = "none"\n[tee]')).encrypted[0].uuid == one
    assert uuid.UUID(one).version == 5
    other = read(GOOD.replace('"demo"', '"other"')).encrypted[0].uuid
    third = read(GOOD.replace('name = "data"', 'name = "state"')).encrypted[0].uuid
    assert len({one, other, third}) == 3


def test_the_overlay_lies_on_a_volume():
    text = root('overlay = "data"').replace('mount = "/var/lib/app"\n', "")
    found = read(text)
    assert found.root.overlay_volume == "data"
    # Programs that are installed must run.
    assert (found.encrypted[0].mount, found.encrypted[0].executable) == ("", True)
    assert not read(text + "executable = false\n").encrypted[0].executable
    assert read(GOOD).root.overlay_volume == ""


def test_the_root_lies_in_an_encrypted_disk():
    found = read(root('key = "kbs:///default/disk-key/root"'))
    around, data = found.encrypted
    assert (around.name, around.device, around.mount) == ("root", "serial:root", "")
    assert (around.format, around.integrity) == ("headerless", "none")
    assert (around.file_system, around.executable) == ("", False)
    assert around.map_name == "troth-root-clear"
    assert data.name == "data"
    text = root(
        'key = "kbs:///default/disk-key/root"\nencryption = "luks2"\n'
        'uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"'
    )
    around = read(text).encrypted[0]
    assert (around.format, around.uuid) == ("luks2", "1b4e28ba-2fa1-11d2-883f-0016d3cca427")


def test_verified_and_encrypted_volumes_beside_each_other():
    verity = '[[volume]]\nname = "m"\nformat = "verity"\nsource = "m/"\nmount = "/srv/m"\n'
    found = read(BASE + BROKER + VOLUME + verity)
    assert [volume.name for volume in found.encrypted] == ["data"]
    assert [(volume.name, volume.index) for volume in found.volumes] == [("m", 1)]
    assert found.where("volume", 1, "source") == f"/src/troth.toml:{AT_VOLUME + 8}"


def test_a_key_in_the_image():
    found = read(BASE + FILE)
    assert found.key_files == (("data", Path("/src/data.key")),)
    # One key for two volumes is packed once.
    second = FILE.replace('"data"', '"logs"').replace("/var/lib/app", "/var/log")
    assert read(BASE + FILE + second).key_files == (("data", Path("/src/data.key")),)


@pytest.mark.parametrize("text", [SNP, FILE])
def test_a_blank_disk_may_be_formatted_where_nobody_else_says(text):
    assert read(BASE + text + 'blank = "format"\n').encrypted[0].blank == "format"


def test_a_volume_for_one_boot_needs_no_secure_processor():
    text = BASE[: BASE.index("[instance]")].replace("simulated", "none")
    assert read(text + RANDOM).encrypted[0].key == "random:"


@pytest.fixture
def authority(tmp_path):
    (tmp_path / "ca.pem").write_text(f"subject: a CA\n{PEM}")
    return tmp_path


CA = '[[broker]]\nname = "keys"\nca = ["ca.pem"]\n'
CA_GOOD = CA + 'server_name = "keys.example"\nnot_before = 2026-01-31\n'


def test_every_key_of_a_broker(authority):
    text = BASE + CA_GOOD + (
        'protocol = "trustee"\naddresses = ["keys.example:443", "10.0.2.2:8443"]\n'
    ) + VOLUME + 'integrity = "none"\n'  # fmt: skip
    assert read(text, authority).brokers == (
        Broker(
            name="keys",
            protocol="trustee",
            addresses=("keys.example:443", "10.0.2.2:8443"),
            spki=(),
            ca=(base64.b64encode(CERTIFICATE).decode(),),
            server_name="keys.example",
            spiffe_id="",
            not_before=1769817600,
            trust_domain="",
        ),
    )


def test_a_broker_known_by_its_spiffe_id(authority):
    text = CA_GOOD.replace('server_name = "keys.example"', 'spiffe_id = "spiffe://td/broker"')
    (found,) = read(BASE + text + VOLUME, authority).brokers
    assert (found.server_name, found.spiffe_id) == ("", "spiffe://td/broker")


SPIFFE = VOLUME.replace("kbs:///default/disk-key/data", "spiffe://td.example/vm/demo")


def test_a_trust_domain_names_its_broker():
    text = BASE + BROKER + 'trust_domain = "td.example"\n' + SPIFFE
    assert read(text).brokers[0].trust_domain == "td.example"


def test_a_broker_that_issues_no_identities():
    text = BASE + BROKER + 'protocol = "trustee"\ntrust_domain = "td.example"\n' + SPIFFE
    error = refused(text)
    assert (error.code, error.where) == ("manifest-conflict", f"/src/troth.toml:{AT_BROKER + 4}")


def test_two_brokers_each_named():
    second = BROKER.replace("keys", "b-2") + 'addresses = ["b.example:1"]\n'
    named = VOLUME.replace("kbs:///", "kbs://b-2/")
    assert len(read(BASE + BROKER + second + named).brokers) == 2


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('key = "tpm2:"', "not-in-this-version"),
        ('key = "tang:x"', "not-in-this-version"),
        ('key = "kbx:///a/b/c"', "manifest-value"),
        ('key = "kbs:///a/b"', "manifest-value"),
        ('key = "kbs:///a/b/c/d"', "manifest-value"),
        ('key = "kbs://10.0.2.2:8443/a/b/c"', "manifest-value"),
        ('key = "kbs:///default/disk-key/.."', "manifest-value"),
        ('key = "random:x"', "manifest-value"),
        ('key = "snp:chip"', "manifest-value"),
        ('key = "file:"', "manifest-value"),
        ('key = ""', "manifest-value"),
        ("key = 1", "manifest-type"),
        ('key = "kbs://other/default/disk-key/data"', "manifest-conflict"),
        ('key = "spiffe://td.example/vm"', "manifest-conflict"),
        ('key = "random:"\nblank = "format"', "manifest-conflict"),
        ('key = "file:data"', "manifest-missing-key"),
    ],
)
def test_keys_that_are_no_source(line, code):
    text = GOOD.replace('key = "kbs:///default/disk-key/data"', line)
    error = refused(text)
    at = AT_VOLUME + 4 + (1 if "blank" in line else 0)
    if code == "manifest-missing-key":
        at = AT_VOLUME
    assert (error.code, error.where) == (code, f"/src/troth.toml:{at}")


def test_the_hint_of_an_unknown_source_lists_the_known():
    error = refused(GOOD.replace("kbs:///", "kbx:///"))
    for scheme in ("kbs:", "spiffe:", "snp:", "random:", "file:"):
        assert scheme in error.hint


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('uuid = "1B4E28BA-2FA1-11D2-883F-0016D3CCA427"', "manifest-value"),
        ('uuid = "1b4e28ba2fa111d2883f0016d3cca427"', "manifest-value"),
        ('uuid = "data"', "manifest-value"),
        ('integrity = "crc"', "manifest-value"),
        ('blank = "yes"', "manifest-value"),
        ('blank = "format"', "manifest-conflict"),
        ('executable = "no"', "manifest-type"),
        ('key_file = "data.key"', "manifest-conflict"),
        ('source = "data/"', "manifest-conflict"),
        ('device = "/dev/vdb"', "manifest-value"),
        ('cipher = "aes"', "manifest-unknown-key"),
    ],
)
def test_values_that_no_volume_has(line, code):
    error = refused(GOOD + f"{line}\n")
    assert (error.code, error.where) == (code, f"/src/troth.toml:{AT_VOLUME + 5}")


@pytest.mark.parametrize("name", ["format", "mount", "key"])
def test_a_volume_needs(name):
    lines = [line for line in VOLUME.splitlines() if not line.startswith(f"{name} ")]
    error = refused(BASE + BROKER + "\n".join(lines) + "\n")
    assert error.code == "manifest-missing-key"
    assert name in error.message


def test_two_volumes_with_one_id():
    text = GOOD + 'uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"\n'
    second = text[text.index("[[volume]]") :].replace('"data"', '"logs"')
    error = refused(text + second.replace("/var/lib/app", "/var/log"))
    assert (error.code, error.where) == ("manifest-conflict", f"/src/troth.toml:{AT_VOLUME + 11}")
    assert error.message.endswith("is that of 'data'")


def test_two_files_for_one_key():
    second = FILE.replace('"data"', '"logs"').replace("/var/lib/app", "/var/log")
    error = refused(BASE + FILE + second.replace("data.key", "logs.key"))
    assert error.code == "manifest-conflict"
    assert "key_file" in error.message


def test_a_volume_for_one_boot_has_no_header():
    error = refused(BASE + RANDOM.replace("headerless", "luks2"))
    assert error.code == "manifest-conflict"


def test_a_format_of_luks2_is_nobodys_but_the_brokers():
    text = SNP.replace("headerless", "luks2") + 'blank = "format"\n'
    assert refused(BASE + text).code == "manifest-conflict"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('encryption = "luks2"', "manifest-conflict"),
        ('uuid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"', "manifest-conflict"),
        ('key_file = "root.key"', "manifest-conflict"),
        ('key = "random:"', "manifest-conflict"),
        ('key = "tpm2:"', "not-in-this-version"),
        ('key = "kbs:///default/disk-key/root"\nencryption = "verity"', "manifest-value"),
        ('key = "snp:"\nblank = "format"', "manifest-unknown-key"),
        ('key = "snp:"\nintegrity = "hmac"', "manifest-unknown-key"),
        ('overlay = "data"', "manifest-conflict"),
        ('overlay = "other"', "manifest-value"),
        ('overlay = "root"', "manifest-value"),
    ],
)
def test_roots_that_are_refused(line, code):
    error = refused(root(line))
    assert error.code == code
    at = AT_VOLUME + 4 if line == 'overlay = "data"' else 6 + line.count("\n")
    assert error.where == f"/src/troth.toml:{at}"


def test_an_overlay_that_the_host_can_change():
    """S8: who can change the upper layer decides what every path leads to."""
    text = root('overlay = "data"').replace('mount = "/var/lib/app"\n', "")
    error = refused(text + 'integrity = "none"\n')
    assert error.code == "manifest-conflict"
    assert "authenticated" in error.message
    assert read(text + 'integrity = "aes-gcm"\n').root.overlay_volume == "data"


def test_an_overlay_on_a_verified_volume():
    verity = '[[volume]]\nname = "m"\nformat = "verity"\nsource = "m/"\nmount = "/srv/m"\n'
    assert refused(root('overlay = "m"') + verity).code == "manifest-value"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('addresses = ["https://keys.example"]', "manifest-value"),
        ('addresses = ["keys.example"]', "manifest-value"),
        ('addresses = ["keys.example:0"]', "manifest-value"),
        ('protocol = "kmip"', "manifest-value"),
        ('trust_domain = "Td"', "manifest-value"),
        ('trust_domain = "td/x"', "manifest-value"),
        ('server_name = "keys.example"', "manifest-conflict"),
        ('spiffe_id = "spiffe://td/broker"', "manifest-conflict"),
        ("not_before = 2026-01-31", "manifest-conflict"),
        ('url = "x"', "manifest-unknown-key"),
    ],
)
def test_lines_that_no_broker_has(line, code):
    error = refused(BASE + BROKER + f"{line}\n" + VOLUME)
    assert (error.code, error.where) == (code, f"/src/troth.toml:{AT_BROKER + 3}")


@pytest.mark.parametrize(
    "pins", ['"AB"', f'"{"AB" * 32}"', f'"{"ab" * 31}"', f'"{"ab" * 33}"',
             ", ".join(f'"{number:064x}"' for number in range(9))]
)  # fmt: skip
def test_pins_that_are_none(pins):
    error = refused(BASE + BROKER.replace(f'"{"ab" * 32}"', pins) + VOLUME)
    assert (error.code, error.where) == ("manifest-value", f"/src/troth.toml:{AT_BROKER + 2}")


@pytest.mark.parametrize("name", ["", "Keys", "a" * 21, "a.b"])
def test_names_that_no_broker_has(name):
    assert refused(BASE + BROKER.replace("keys", name) + VOLUME).code == "manifest-value"


def test_a_broker_without_a_name():
    assert refused(BASE + BROKER.replace('name = "keys"\n', "")).code == "manifest-missing-key"


def test_a_broker_that_anybody_could_be():
    text = BROKER.replace(f'spki = ["{"ab" * 32}"]\n', "")
    error = refused(BASE + text + VOLUME)
    assert error.code == "manifest-conflict"
    assert "spki" in error.hint


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (CA_GOOD + f'spki = ["{"ab" * 32}"]\n', "manifest-conflict"),
        (CA + "not_before = 2026-01-31\n", "manifest-conflict"),
        (CA_GOOD + 'spiffe_id = "spiffe://td/broker"\n', "manifest-conflict"),
        (CA + 'server_name = "keys.example"\n', "manifest-missing-key"),
        (CA_GOOD.replace("2026-01-31", '"2026-01-31"'), "manifest-type"),
        (CA_GOOD.replace("2026-01-31", "2026-01-31T00:00:00Z"), "manifest-type"),
        (CA_GOOD.replace("ca.pem", "gone.pem"), "manifest-value"),
        (CA_GOOD.replace('server_name = "keys.example"', 'spiffe_id = "spiffe://TD/x"'),
         "manifest-value"),
        (CA_GOOD.replace('server_name = "keys.example"', 'spiffe_id = "https://td/x"'),
         "manifest-value"),
    ],
)  # fmt: skip
def test_authorities_that_are_not_enough(text, code, authority):
    assert refused(BASE + text + VOLUME, authority).code == code


@pytest.mark.parametrize(
    "content",
    ["", "no certificate", PEM + PEM, PEM.replace("MAMCAQc=", "MAMCAQc"),
     PEM.replace("MAMCAQc=", "="), PEM.replace("CERTIFICATE", "PRIVATE KEY"), "\u00e9" + PEM,
     PEM.replace("MAMCAQc=", "MA=CAQc=")],
)  # fmt: skip
def test_files_that_are_no_certificate(content, authority):
    (authority / "ca.pem").write_text(content, "utf-8")
    error = refused(BASE + CA_GOOD + VOLUME, authority)
    assert (error.code, error.where) == (
        "manifest-value", f"{authority}/troth.toml:{AT_BROKER + 2}",
    )  # fmt: skip


def test_two_brokers_with_one_name():
    error = refused(BASE + BROKER + BROKER + VOLUME)
    assert (error.code, error.where) == ("manifest-value", f"/src/troth.toml:{AT_BROKER + 4}")


def test_a_volume_that_does_not_say_which_broker():
    second = BROKER.replace("keys", "b-2") + 'addresses = ["b.example:1"]\n'
    assert refused(BASE + BROKER + second + VOLUME).code == "manifest-conflict"
    assert refused(BASE + VOLUME).code == "manifest-conflict"


@pytest.mark.parametrize("domains", [(), ("td.example", "td.example")])
def test_a_trust_domain_that_is_not_one_brokers(domains):
    brokers = "".join(
        f'[[broker]]\nname = "b-{number}"\nspki = ["{"ab" * 32}"]\n'
        f'addresses = ["b.example:1"]\ntrust_domain = "{domain}"\n'
        for number, domain in enumerate(domains)
    )
    error = refused(BASE + brokers + SPIFFE)
    assert error.code == "manifest-conflict"
    assert 'trust_domain = "td.example"' in error.hint


def test_a_broker_that_nobody_can_find():
    text = GOOD.replace('brokers = ["keys"]', 'brokers = ["others"]')
    error = refused(text)
    assert error.code == "manifest-missing-key"
    assert '[instance] brokers = ["keys"]' in error.hint
    assert read(text.replace("spki", 'addresses = ["10.0.2.2:8443"]\nspki')).brokers


def test_a_broker_without_a_way_to_it():
    text = GOOD.replace('[network]\nmethod = "dhcp"\n', "")
    error = refused(text)
    assert (error.code, error.where) == ("manifest-conflict", f"/src/troth.toml:{AT_VOLUME + 2}")
    assert "[network]" in error.hint
    # What an instance may choose is used only where [network] asks for it.
    chosen = text.replace("[instance]", '[instance]\nnetwork = ["dhcp"]')
    assert refused(chosen).code == "manifest-conflict"
    assert read(chosen + '[network]\nmethod = "instance"\n').network.method == "instance"


@pytest.mark.parametrize("snp", ["none", "required"])
def test_a_key_in_an_image_that_protects_something(snp):
    text = BASE[: BASE.index("[instance]")].replace("simulated", snp)
    error = refused(text.replace("[tee]\n", '[tee]\nvtpm = "none"\n') + FILE)
    assert error.code == "manifest-conflict"
    assert "simulated" in error.hint


@pytest.mark.parametrize("volume", [SNP, VOLUME])
def test_a_key_for_which_nobody_vouches(volume):
    text = BASE[: BASE.index("[instance]")].replace("simulated", "none")
    brokers = BROKER + 'addresses = ["b.example:1"]\n'
    assert refused(text + brokers + volume).code == "manifest-conflict"


@given(
    st.integers(0, len(GOOD) - 1), st.text("ab\"'=[]\n.:/-\u00e9", max_size=3), st.integers(0, 5)
)
def test_a_mutated_manifest(position, insert, cut):
    try:
        read(GOOD[:position] + insert + GOOD[position + cut :])
    except ManifestError:
        return


def test_the_keys_are_those_that_are_read():
    """A key that is known and read nowhere would be a promise."""
    source = Path(manifest_keys.__file__).read_text()
    for key in (*manifest_keys.VOLUME_KEYS, *manifest_keys.BROKER_KEYS):
        assert f'"{key}"' in source.split("FILE_SYSTEM", 1)[1], key


REAL = BASE.replace('snp = "simulated"', 'snp = "required"\nvtpm = "none"')


def test_a_derived_key_is_this_images_alone():
    """Policy and ids are the host's to set, so any kernel on the chip would derive the key."""
    assert read(REAL + SNP + 'blank = "format"\n').encrypted[0].key == "snp:"
    loose = SNP.replace('"snp:"', '"snp:policy,image_id"')
    error = refused(REAL + loose)
    assert error.code == "manifest-conflict"
    assert error.hint == 'key = "snp:measurement,policy,image_id"'
    assert read(BASE + loose)


def test_nobody_can_make_a_luks2_volume_for_a_derived_key():
    assert refused(BASE + SNP.replace("headerless", "luks2")).code == "manifest-conflict"


def test_what_a_broker_without_states_cannot_have_made():
    trustee = BROKER + 'protocol = "trustee"\n'
    assert refused(BASE + trustee + VOLUME).code == "manifest-conflict"
    assert read(BASE + trustee + VOLUME + 'integrity = "none"\n')
    assert read(BASE + trustee + VOLUME.replace("headerless", "luks2"))
