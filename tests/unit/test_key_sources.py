# SPDX-License-Identifier: Apache-2.0
"""Sources of keys against a broker that keeps the rules, and one that breaks them one by one."""

import os
import time

import pytest

import made_kbs
import made_report
import made_tls
from made_kbs import KEY, PROFILE, VOLUME, Model, no, serving
from made_tls import answer
from troth.abi import guest_payload
from troth.boot.key_sources import file, sources
from troth.boot.key_sources.sources import Surroundings, Wanted
from troth.ciphers import sealing
from troth.ciphers.key_agreement import AgreementKey
from troth.documents import broker_calls, jwe, jwk, kbs, key_uri, volume_key
from troth.errors import FormatError, ProviderError, TrothError
from troth.record import replace

WANTED = Wanted(VOLUME, PROFILE)
KBS_URI = "kbs:///default/disk-key/data"


def no_keys(_request):
    raise AssertionError("no derived key was asked for")


def around(*brokers, evidence=made_kbs.evidence, derived_key=no_keys, within_s=5.0):
    return Surroundings(
        brokers, evidence=evidence, derived_key=derived_key, deadline_s=time.monotonic() + within_s
    )


def released(text, broker, **options):
    surroundings = around(broker, **options)
    try:
        return sources.source(key_uri.parse(text), surroundings).release(WANTED)
    finally:
        surroundings.close()


def code_of(model, text=KBS_URI, **broker):
    with serving(model) as there, pytest.raises(TrothError) as caught:
        released(text, replace(there, **broker), within_s=broker.pop("within_s", 5.0))
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    return caught.value.code


# --- kbs: -----------------------------------------------------------------------------------


def test_a_key_its_commit_and_the_end():
    model = Model()
    with serving(model) as broker:
        surroundings = around(broker)
        source = sources.source(key_uri.parse(KBS_URI), surroundings)
        found = source.release(WANTED)
        source.commit(1, "ab" * 32)
        surroundings.finish()
        surroundings.close()
    assert (bytes(found.key), found.state, found.tracked) == (KEY, "in-use", True)
    assert (found.generation, found.digest) == (0, "")
    assert found.identity == f"spki-sha256:{made_tls.pin(made_tls.key(2))}"
    assert "key" not in repr(found).replace("spki", "")
    assert model.commits == [broker_calls.Commit(1, "ab" * 32)]
    assert model.finished == 1
    assert model.asked == [
        "/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/resource/default/disk-key/data",
        "/kbs/v0/troth/commit/default/disk-key/data", "/kbs/v0/troth/boot-finished",
    ]  # fmt: skip
    assert model.reports[0].certificates == (("vcek-0", b"0\1"),)
    found.wipe()
    assert not any(found.key)


def test_two_volumes_share_a_session():
    model = Model()
    with serving(model) as broker:
        surroundings = around(broker)
        for name in ("a", "b"):
            uri = key_uri.parse(f"kbs://main/default/disk-key/{name}")
            sources.source(uri, surroundings).release(WANTED)
        surroundings.close()
    assert model.asked.count("/kbs/v0/attest") == 1


def test_state_and_generation_are_the_brokers():
    model = Model(released=volume_key.VolumeKey(VOLUME, PROFILE, KEY, "formatting", 7, "cd" * 32))
    with serving(model) as broker:
        found = released(KBS_URI, broker)
    assert (found.state, found.generation, found.digest) == ("formatting", 7, "cd" * 32)


def test_a_broker_without_states_formats_nothing_and_tracks_nothing():
    model = Model()
    with serving(model) as broker:
        surroundings = around(replace(broker, protocol="trustee"))
        found = sources.source(key_uri.parse(KBS_URI), surroundings).release(WANTED)
        surroundings.finish()
        surroundings.close()
    assert not found.tracked
    assert model.finished == 0
    new = Model(released=volume_key.VolumeKey(VOLUME, PROFILE, KEY, "formatting"))
    assert code_of(new, protocol="trustee") == "broker-state"


def test_a_session_that_ended_is_made_again_once():
    said = iter([no("TokenNotFound"), None])
    model = Model(bend={kbs.RESOURCE_PATH: lambda _model, _request: next(said)})
    with serving(model) as broker:
        assert bytes(released(KBS_URI, broker).key) == KEY
    assert model.asked.count("/kbs/v0/auth") == 2
    first, second = (kbs.parse_attest(b) for p, b in zip(model.asked, model.bodies, strict=True)
                     if p == "/kbs/v0/attest")  # fmt: skip
    assert first.tee_pubkey == second.tee_pubkey
    assert first.nonce != second.nonce


@pytest.mark.parametrize(
    ("path", "handshakes"), [(kbs.AUTH_PATH, 1), (kbs.ATTEST_PATH, 1), (kbs.RESOURCE_PATH, 2)]
)
def test_a_no_is_a_no(path, handshakes):
    model = Model(bend={path: lambda _model, _request: no(detail="no\x1b[2J" + "x" * 5000)})
    assert code_of(model) == "broker-refused"
    assert model.asked.count("/kbs/v0/auth") == handshakes


def test_a_boot_has_its_own_key():
    keys = set()
    for _ in range(2):
        model = Model()
        with serving(model) as broker:
            released(KBS_URI, broker)
        keys |= {key.x for key in model.sessions.values()}
    assert len(keys) == 2


def instead(path, *said):
    """The texts ``said`` in place of the answers to ``path``, the last one again and again."""
    left = list(said)
    return {path: lambda _model, _request: left.pop(0) if len(left) > 1 else left[0]}


COOKIE = "Set-Cookie: kbs-session-id={}\r\n"
CHALLENGE = kbs.print_challenge(kbs.Challenge("once"))
AUTH, ATTEST, RESOURCE = kbs.AUTH_PATH, kbs.ATTEST_PATH, kbs.RESOURCE_PATH
BENT = {
    "missing": (instead(RESOURCE, no("PluginNotFound", "x", "404 Not Found")), "broker-missing"),
    "teapot": (instead(RESOURCE, answer(b"\xff\x00", "418 No")), "broker-refused"),
    "created": (instead(RESOURCE, answer(b"{}", "201 Created")), "broker-refused"),
    "server error": (instead(AUTH, answer(b"", "500 Oops")), "broker-refused"),
    "no cookie": (instead(AUTH, answer(CHALLENGE)), "broker-session"),
    "other cookie": (
        instead(ATTEST, answer(kbs.print_token("a"), more=COOKIE.format("f" * 32))),
        "broker-session",
    ),
    "cookie later": (
        instead(RESOURCE, answer(b"{}", more=COOKIE.format("e" * 32))),
        "broker-session",
    ),
    "nonce twice": (
        instead(AUTH, answer(CHALLENGE, more=COOKIE.format("a" * 32)))
        | instead(ATTEST, answer(kbs.print_token("a")))
        | instead(RESOURCE, no("TokenNotFound")),
        "broker-nonce",
    ),
    "other hash": (
        instead(
            AUTH,
            answer(
                b'{"nonce":"a","extra-params":{"selected-hash-algorithm":"sha512"}}',
                more=COOKIE.format("a" * 32),
            ),
        ),
        "kbs-hash",
    ),
    "no token": (instead(ATTEST, answer(b"{}")), "json-missing"),
    "not JSON": (instead(RESOURCE, answer(b"<html>")), "json-syntax"),
    "duplicate": (instead(RESOURCE, answer(b'{"tag":1,"tag":1}')), "json-duplicate"),
    "deep": (instead(RESOURCE, answer(b"[" * 100_000)), "json-syntax"),
}


@pytest.mark.parametrize("name", BENT)
def test_brokers_that_break_the_rules(name):
    bend, code = BENT[name]
    assert code_of(Model(bend=bend)) == code


def sealed_by(change):
    """What ``change`` of (our key, the right plain text) gives, as the answer."""

    def other(model, request):
        session = request.headers["cookie"].removeprefix("kbs-session-id=")
        return answer(change(model.sessions[session], volume_key.print_(model.released)))

    return {RESOURCE: other}


def off_the_curve(key, text):
    made = sealing.seal(key, text)
    epk = replace(made.ephemeral, y=bytes(32))
    return jwe.print_(replace(made, protected=jwe.protect(jwk.ECDH, epk)))


def direct(_key, _text):
    return jwe.print_(replace(sealing.seal(AgreementKey().public, b""),
                              protected="eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0"))  # fmt: skip


def rsa(key, text):
    made = sealing.seal(key, text)
    changed = replace(made, protected=jwe.protect(jwk.RSA_OAEP), encrypted_key=bytes(256))
    return jwe.print_(changed)


def changed(**parts):
    return lambda key, text: jwe.print_(replace(sealing.seal(key, text), **parts))


SEALED = {
    "to another": (lambda _k, text: jwe.print_(sealing.seal(AgreementKey().public, text)),
                   "jwe-open"),
    "other curve": (lambda _k, text: jwe.print_(sealing.seal(AgreementKey(jwk.P521).public, text)),
                    "jwe-algorithm"),
    "direct": (direct, "jwe-algorithm"),
    "rsa": (rsa, "jwe-algorithm"),
    "off the curve": (off_the_curve, "jwk-curve"),
    "tag": (changed(tag=bytes(16)), "jwe-open"),
    "iv": (changed(iv=bytes(12)), "jwe-open"),
    "wrapped key": (changed(encrypted_key=bytes(40)), "jwe-open"),
    "header": (changed(protected="eyI"), "json-syntax"),
    "plain": (lambda _k, text: text, "json-missing"),
    "empty": (lambda k, _t: jwe.print_(sealing.seal(k, b"")), "json-syntax"),
    "bare key": (lambda k, _t: jwe.print_(sealing.seal(k, KEY)), "json-syntax"),
    "mac": (lambda k, t: jwe.print_(sealing.seal(k, t.replace(b"in-use", b"formatting"))),
            "volume-key-mac"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEALED)
def test_keys_that_are_not_ours(name):
    change, code = SEALED[name]
    assert code_of(Model(bend=sealed_by(change))) == code


@pytest.mark.parametrize(
    "changes",
    [{"volume": VOLUME.replace("6", "7")}, {"profile": "luks2/none/4096"}],
)
def test_a_key_of_another_volume_or_use(changes):
    other = replace(volume_key.VolumeKey(VOLUME, PROFILE, KEY), **changes)
    assert code_of(Model(released=other)) == "volume-key-other"


def test_a_platform_that_fails_is_no_reason_to_go_on():
    def broken(_report_data):
        raise ProviderError("vmpck-lost", "gone")

    model = Model()
    with serving(model) as broker, pytest.raises(ProviderError) as caught:
        released(KBS_URI, broker, evidence=broken)
    assert caught.value.code == "vmpck-lost"
    assert model.asked == ["/kbs/v0/auth"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("kbs://other/a/b/c", ("main",)),
        ("kbs:///a/b/c", ()),
        ("kbs:///a/b/c", ("main", "second")),
        ("spiffe://elsewhere/vm/demo", ("main",)),
    ],
)
def test_a_broker_is_named_without_doubt(text, names):
    brokers = [made_tls.Broker(name=name, trust_domain="example.org") for name in names]
    with pytest.raises(ProviderError) as caught:
        sources.source(key_uri.parse(text), around(*brokers))
    assert caught.value.code == "broker-unknown"


def test_only_the_session_is_used_after_its_end():
    model = Model()
    with serving(model) as broker:
        surroundings = around(broker)
        source = sources.source(key_uri.parse(KBS_URI), surroundings)
        source.release(WANTED)
        surroundings.close()
        with pytest.raises(ProviderError) as caught:
            source.release(WANTED)
    assert caught.value.code == "broker-session"


# --- spiffe: --------------------------------------------------------------------------------


def test_an_identity_its_key_and_its_commit():
    model = Model()
    with serving(model, clients=made_tls.authority()) as broker:
        surroundings = around(broker)
        uri = key_uri.parse(made_kbs.ID)
        source = sources.source(uri, surroundings)
        found = source.release(WANTED)
        source.commit(3, "ef" * 32)
        sources.source(uri, surroundings).release(WANTED)
        surroundings.finish()
        surroundings.close()
    assert bytes(found.key) == KEY
    assert found.tracked
    assert model.commits == [broker_calls.Commit(3, "ef" * 32, VOLUME)]
    assert model.asked.count("/spiffe/v1/issue") == 1
    assert model.finished == 1


def svid(**changes):
    """A broker that certifies our key in another way."""

    def other(model, request):
        csr = made_kbs.x509.load_der_x509_csr(broker_calls.parse_issue(request.body))
        public = changes.get("public") or csr.public_key()
        chain = model.svid(public, uris=changes.get("uris", (made_kbs.ID,)))
        return answer(broker_calls.print_svid(changes.get("chain", chain)))

    return {broker_calls.ISSUE_PATH: other}


@pytest.mark.parametrize(
    "changes",
    [
        {"public": made_tls.key(9).public_key()},
        {"uris": ("spiffe://example.org/vm/other",)},
        {"uris": ("spiffe://example.com/vm/demo",)},
        {"uris": ()},
        {"uris": (made_kbs.ID, "spiffe://example.org/vm/other")},
        {"uris": ("https://example.org/vm/demo",)},
        {"chain": (b"0\1",)},
    ],
)
def test_certificates_that_are_not_for_this_guest(changes):
    assert code_of(Model(bend=svid(**changes)), made_kbs.ID) == "spiffe-certificate"


def test_a_uri_without_path_takes_what_the_broker_calls_it():
    model = Model(bend=svid(uris=("spiffe://example.org/vm/anything",)))
    with serving(model, clients=made_tls.authority()) as broker:
        assert bytes(released("spiffe://example.org", broker).key) == KEY
    foreign = Model(bend=svid(uris=("spiffe://example.org.evil/vm",)))
    assert code_of(foreign, "spiffe://example.org") == "spiffe-certificate"


def test_where_the_issuer_is_pinned_the_certificate_has_it():
    own = made_tls.certificate(
        made_tls.key(2), made_tls.key(1), dns=("broker.example",), days=36500
    )
    context = made_tls.server_context(chain=(own,), clients=made_tls.authority(), optional=True)
    for issuer, code in ((1, ""), (7, "spiffe-certificate")):
        model = Model(issuer=issuer)
        with made_tls.Listener(model.handle, context=context) as there:
            broker = made_tls.Broker(
                addresses=(there.address,), ca=(made_tls.base64_of(made_tls.authority()),),
                server_name="broker.example", trust_domain="example.org",
            )  # fmt: skip
            if not code:
                assert released(made_kbs.ID, broker).identity == "dns:broker.example"
                continue
            with pytest.raises(ProviderError) as caught:
                released(made_kbs.ID, broker)
            assert caught.value.code == code


def test_only_brokers_of_troth_give_identities():
    assert code_of(Model(), made_kbs.ID, protocol="trustee") == "broker-unknown"


# --- without a broker -----------------------------------------------------------------------


def test_random_keys_are_never_the_same():
    found = [sources.source(key_uri.parse("random:"), around()).release(WANTED) for _ in range(2)]
    assert found[0].key != found[1].key
    assert {(len(item.key), item.state, item.tracked) for item in found} == {
        (64, "formatting", False)
    }


def test_packed_keys(tmp_path):
    def code(name):
        with pytest.raises(ProviderError) as caught:
            file.FileSource(name, directory=str(tmp_path)).release(WANTED)
        return caught.value.code

    for size in (32, 64):
        (tmp_path / "good").write_bytes(bytes(range(size)))
        found = file.FileSource("good", directory=str(tmp_path)).release(WANTED)
        assert (bytes(found.key), found.identity) == (bytes(range(size)), "file:good")
        assert (found.state, found.tracked) == ("", False)
    (tmp_path / "short").write_bytes(bytes(31))
    (tmp_path / "long").write_bytes(bytes(65))
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("short", "long", "link", "folder", "pipe", "none"):
        assert code(name) == "key-packed", name


@pytest.mark.parametrize("text", ["random:", "file:x", "snp:"])
def test_nobody_else_keeps_generations(text):
    with pytest.raises(ProviderError) as caught:
        sources.source(key_uri.parse(text), around()).commit(1, "00" * 32)
    assert caught.value.code == "key-untracked"


# --- snp: -----------------------------------------------------------------------------------


def derived(text, wanted=WANTED, **report):
    asked = []

    def device(request):
        asked.append(request)
        return bytes(range(32))

    def platform(report_data):
        return made_report.report(report_data=report_data, **report), ()

    surroundings = around(evidence=platform, derived_key=device)
    found = sources.source(key_uri.parse(text), surroundings).release(wanted)
    assert bytes(found.key) == bytes(range(32))
    (request,) = asked
    assert request.root_key == guest_payload.ROOT_KEY_VCEK
    return found, request


OWN_TCB = {"committed_tcb": bytes.fromhex("04000000000018db"), "guest_svn": 5, "vmpl": 1}


def test_derived_keys_by_default():
    found, request = derived("snp:", **OWN_TCB)
    assert request.fields == guest_payload.FIELD_MEASUREMENT | guest_payload.FIELD_POLICY
    assert (request.vmpl, request.guest_svn, request.tcb_version) == (1, 0, 0)
    assert found.identity == "snp:measurement,policy"
    assert (found.tcb, found.guest_svn, found.state, found.tracked) == (None, None, "", False)


def test_derived_keys_with_levels():
    found, request = derived("snp:tcb,measurement,guest_svn", **OWN_TCB)
    assert request.fields == (
        guest_payload.FIELD_TCB_VERSION
        | guest_payload.FIELD_MEASUREMENT
        | guest_payload.FIELD_GUEST_SVN
    )
    assert request.tcb_version == found.tcb == int.from_bytes(OWN_TCB["committed_tcb"], "little")
    assert request.guest_svn == found.guest_svn == 5
    assert found.identity == "snp:measurement,guest_svn,tcb"
    older = Wanted(VOLUME, PROFILE, tcb=3, guest_svn=4)
    found, request = derived("snp:tcb,guest_svn", older, **OWN_TCB)
    assert (request.tcb_version, request.guest_svn, found.tcb, found.guest_svn) == (3, 4, 3, 4)


def test_an_older_image_cannot_open_what_a_later_one_wrote():
    with pytest.raises(ProviderError) as caught:
        derived("snp:guest_svn", Wanted(VOLUME, PROFILE, guest_svn=6), **OWN_TCB)
    assert caught.value.code == "key-later"


def test_an_unknown_report_derives_nothing():
    with pytest.raises(FormatError) as caught:
        derived("snp:", version=9)
    assert caught.value.code == "snp-report-version"
