"""Certificates: what is agreed upon, whom it lets in, and that new files are taken up."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority, Issued, TlsTable
from structlog.testing import capture_logs

from dicomnode.errors import Misconfigured
from dicomnode.network.tls import Certificates

HERE = "127.0.0.1"


@pytest.fixture
def ours(authority: Authority) -> Issued:
    return authority.issue("node")


@pytest.fixture
def table(authority: Authority, ours: Issued) -> TlsTable:
    return TlsTable(certificate=ours.certificate, key=ours.key, ca=authority.certificate)


def meet(
    called: ssl.SSLContext, caller: ssl.SSLContext, *, name: str | None = HERE
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let the two sides of a connection shake hands; an `SSLError` says why they do not."""
    to_called, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        caller.wrap_bio(to_caller, to_called, server_hostname=name),
        called.wrap_bio(to_called, to_caller, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1], ends[0]


def common_name(end: ssl.SSLObject) -> str:
    """Whom the other side of a connection says it is."""
    certificate = end.getpeercert()
    assert certificate is not None
    return dict(pair for (pair,) in certificate["subject"])["commonName"]


def test_both_sides_show_and_check_certificates_and_choose_tls_1_3(table: TlsTable) -> None:
    certificates = Certificates(table)
    called, caller = meet(certificates.server(), certificates.client())
    assert called.version() == caller.version() == "TLSv1.3"
    assert common_name(called) == common_name(caller) == "node"
    assert caller.compression() is None


def test_a_side_that_has_nothing_newer_gets_tls_1_2(table: TlsTable) -> None:
    certificates = Certificates(table)
    older = certificates.client()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    called, _ = meet(certificates.server(), older)
    assert called.version() == "TLSv1.2"
    cipher = called.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-ECDSA-AES")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_an_older_version_is_refused(table: TlsTable, version: ssl.TLSVersion) -> None:
    outdated = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outdated.set_ciphers("ALL:@SECLEVEL=0")
    outdated.minimum_version = outdated.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"UNSUPPORTED_PROTOCOL|unsupported protocol"):
        meet(Certificates(table).server(), outdated)


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "ECDHE-ECDSA-AES128-CCM"]
)
def test_a_suite_that_rfc_9325_does_not_recommend_is_refused(table: TlsTable, suite: str) -> None:
    weaker = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    weaker.set_ciphers(suite)
    weaker.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"NO_SHARED_CIPHER|no shared cipher"):
        meet(Certificates(table).server(), weaker)


def test_neither_side_takes_up_compression_or_renegotiation(table: TlsTable) -> None:
    certificates = Certificates(table)
    for context in (certificates.server(), certificates.client()):
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION


# ── Who is let in ───────────────────────────────────────────────────────────────────────────────


def test_who_shows_no_certificate_is_refused(table: TlsTable, authority: Authority) -> None:
    anonymous = Certificates(TlsTable(ca=authority.certificate)).client()
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        meet(Certificates(table).server(), anonymous)


def test_who_is_vouched_for_by_a_stranger_is_refused(table: TlsTable, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger").issue("ct1")
    caller = Certificates(replace(table, certificate=stranger.certificate, key=stranger.key))
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(Certificates(table).server(), caller.client())


def test_certificates_of_clients_need_not_be_asked_for(
    table: TlsTable, authority: Authority
) -> None:
    anonymous = Certificates(TlsTable(ca=authority.certificate)).client()
    server = Certificates(replace(table, ca=None, client_certificates="none")).server()
    called, _ = meet(server, anonymous)
    assert called.getpeercert() is None


def test_a_certificate_that_has_expired_is_refused(table: TlsTable, authority: Authority) -> None:
    expired = authority.issue("ct1", days=-1)
    caller = Certificates(replace(table, certificate=expired.certificate, key=expired.key))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        meet(Certificates(table).server(), caller.client())


def test_the_name_in_a_certificate_is_looked_at_unless_any_will_do(
    table: TlsTable, authority: Authority
) -> None:
    certificates = Certificates(table)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        meet(certificates.server(), certificates.client(), name="pacs.example")
    meet(certificates.server(), certificates.client(any_name=True), name=None)
    nameless = authority.issue("PACS", host="")
    pacs = Certificates(replace(table, certificate=nameless.certificate, key=nameless.key))
    meet(pacs.server(), certificates.client(), name="PACS")  # by its common name


def test_any_name_will_not_do_where_anybody_may_have_signed(table: TlsTable) -> None:
    with pytest.raises(Misconfigured, match="no-ca"):
        Certificates(replace(table, ca=None)).client(any_name=True)


def test_a_certificate_may_be_trusted_by_itself(table: TlsTable, ours: Issued) -> None:
    certificates = Certificates(replace(table, ca=ours.certificate))
    meet(certificates.server(), certificates.client())


# ── What cannot be used ─────────────────────────────────────────────────────────────────────────


def test_without_a_certificate_nobody_can_call_us(authority: Authority) -> None:
    with pytest.raises(Misconfigured, match="no-certificate"):
        Certificates(TlsTable(ca=authority.certificate)).server()


def test_clients_cannot_be_checked_against_nothing(table: TlsTable) -> None:
    with pytest.raises(Misconfigured, match="no-ca"):
        Certificates(replace(table, ca=None)).server()


@pytest.mark.parametrize("content", [None, "", "no PEM"])
@pytest.mark.parametrize("key", ["certificate", "key", "ca"])
def test_a_file_that_cannot_be_used_is_named_at_the_start(
    table: TlsTable, tmp_path: Path, key: str, content: str | None
) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content)
    changed = {"certificate": table.certificate, "key": table.key, "ca": table.ca, key: file}
    with pytest.raises(Misconfigured, match=f"{key}-unusable.*file.pem"):
        Certificates(TlsTable(**changed))


@pytest.mark.parametrize("rsa_bits", [0, 2048])
def test_a_key_of_another_certificate_is_named(
    table: TlsTable, authority: Authority, rsa_bits: int
) -> None:
    other = authority.issue("other", rsa_bits=rsa_bits)
    with pytest.raises(Misconfigured, match=r"key-unusable.*is not the key of .*node\.crt"):
        Certificates(replace(table, key=other.key))


def test_a_key_that_is_too_short_is_named(table: TlsTable, authority: Authority) -> None:
    weak = authority.issue("weak", rsa_bits=1024)
    with pytest.raises(Misconfigured, match=r"key-unusable.*too short"):
        Certificates(replace(table, certificate=weak.certificate, key=weak.key))


def test_an_rsa_key_serves_as_well(table: TlsTable, authority: Authority) -> None:
    rsa = authority.issue("rsa", rsa_bits=2048)
    certificates = Certificates(replace(table, certificate=rsa.certificate, key=rsa.key))
    older = certificates.client()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    _, caller = meet(certificates.server(), older)
    assert common_name(caller) == "rsa"


def test_a_key_that_is_encrypted_opens_with_its_password_alone(
    table: TlsTable, authority: Authority, tmp_path: Path
) -> None:
    locked = authority.issue("locked", password="open sesame")
    word = tmp_path / "word"
    entry = replace(table, certificate=locked.certificate, key=locked.key)
    with pytest.raises(Misconfigured, match=r"key-unusable.*password"):
        Certificates(entry)  # and nobody is asked on the terminal
    for wrong in ("wrong", "", "x" * 2000):
        word.write_text(wrong)
        with pytest.raises(Misconfigured, match=r"key-unusable.*password"):
            Certificates(replace(entry, key_password_file=word))
    word.write_text("open sesame\n")
    certificates = Certificates(replace(entry, key_password_file=word))
    _, caller = meet(certificates.server(), certificates.client())
    assert common_name(caller) == "locked"


# ── Files that change ───────────────────────────────────────────────────────────────────────────


def test_a_certificate_that_is_replaced_is_shown_from_then_on(
    table: TlsTable, ours: Issued, authority: Authority
) -> None:
    certificates = Certificates(table)
    before = certificates.server()
    assert certificates.server() is before
    ours.replace(authority.issue("renewed"))
    _, caller = meet(certificates.server(), certificates.client())
    assert common_name(caller) == "renewed"


def unlink(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [unlink, empty])
def test_what_does_not_load_is_told_once_and_the_old_stays(
    table: TlsTable, ours: Issued, authority: Authority, damage: Callable[[Path], None]
) -> None:
    certificates = Certificates(table)
    server = certificates.server()
    damage(ours.key)
    with capture_logs() as logs:
        assert certificates.server() is server
        assert certificates.server() is server
        certificates.client()
    assert [entry["event"] for entry in logs] == ["certificates not replaced"]
    assert logs[0]["reason"] == "key-unusable"
    ours.replace(authority.issue("renewed"))
    _, caller = meet(certificates.server(), certificates.client())
    assert common_name(caller) == "renewed"


def test_a_certificate_is_not_used_before_its_key_is_there(
    table: TlsTable, ours: Issued, authority: Authority
) -> None:
    certificates = Certificates(table)
    renewed = authority.issue("renewed")
    renewed.certificate.replace(ours.certificate)
    _, caller = meet(certificates.server(), certificates.client())
    assert common_name(caller) == "node"
    renewed.key.replace(ours.key)
    _, caller = meet(certificates.server(), certificates.client())
    assert common_name(caller) == "renewed"


def test_an_authority_that_is_added_is_trusted_from_then_on(
    table: TlsTable, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    stranger = other.issue("ct1")
    caller = Certificates(replace(table, certificate=stranger.certificate, key=stranger.key))
    certificates = Certificates(table)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(certificates.server(), caller.client())
    with authority.certificate.open("ab") as trusted:
        trusted.write(other.certificate.read_bytes())
    called, _ = meet(certificates.server(), caller.client())
    assert common_name(called) == "ct1"
