"""What an authority issues, and that OpenSSL takes it at its strictest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from mtlsgate.certificates.development_ca import Authority, Credential, PrivateKey, self_signed
from tests.kits.forgery import sha1_signed

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def verify_strictly(credential: Credential, *anchors: x509.Certificate) -> None:
    """Build and check a path as OpenSSL does under RFC 5280's letter."""
    store = crypto.X509Store()
    flags = crypto.X509StoreFlags
    store.set_flags(flags.X509_STRICT | flags.PARTIAL_CHAIN | flags.CHECK_SS_SIGNATURE)
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    leaf, *others = map(crypto.X509.from_cryptography, credential.chain)
    crypto.X509StoreContext(store, leaf, others).verify_certificate()


T = TypeVar("T", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[T]) -> T:
    return certificate.extensions.get_extension_for_class(kind).value


class TestStrictness:
    """Everything that is issued verifies with X509_STRICT."""

    def test_a_leaf_of_a_root_verifies(self) -> None:
        """A leaf of a root."""
        root = Authority.create()
        verify_strictly(root.issue("alice"), root.certificate)

    def test_a_leaf_below_two_intermediates_verifies(self) -> None:
        """A leaf below two intermediates, from the root and from either of them."""
        root = Authority.create(path_length=2)
        upper = root.intermediate("upper", path_length=1)
        lower = upper.intermediate("lower", path_length=0)
        alice = lower.issue("alice")
        for authority in (root, upper, lower):
            verify_strictly(alice, authority.certificate)

    def test_path_length(self) -> None:
        """A path length that is exceeded is seen to be."""
        root = Authority.create(path_length=0)
        alice = root.intermediate().issue("alice")
        with pytest.raises(crypto.X509StoreContextError, match="path length"):
            verify_strictly(alice, root.certificate)

    def test_name_constraints(self) -> None:
        """Name constraints are there and bind."""
        permitted = x509.NameConstraints([x509.DNSName("good.example")], None)
        root = Authority.create(name_constraints=permitted)
        verify_strictly(root.issue("a", dns_names=["a.good.example"]), root.certificate)
        with pytest.raises(crypto.X509StoreContextError, match="permitted subtree"):
            verify_strictly(root.issue("a", dns_names=["bad.example"]), root.certificate)

    def test_every_name(self) -> None:
        """Every kind of name, with and without a subject."""
        root = Authority.create()
        for common_name in ("alice", None):
            credential = root.issue(
                common_name,
                dns_names=["a.example", "*.b.example"],
                ip_addresses=["192.0.2.1", "2001:db8::1"],
                uris=["spiffe://td/x"],
                email_addresses=["alice@example.org"],
            )
            verify_strictly(credential, root.certificate)

    @pytest.mark.parametrize("is_ca", [False, True])
    def test_a_leaf_that_is_a_ca_verifies(self, is_ca: bool) -> None:
        """A leaf that says it is a CA is one by the book."""
        root = Authority.create()
        credential = root.issue("alice", is_ca=is_ca)
        verify_strictly(credential, root.certificate)
        assert extension(credential.certificate, x509.BasicConstraints).ca is is_ca

    def test_self_signed(self) -> None:
        """A pin without a CA."""
        alice = self_signed("alice", dns_names=["a.example"])
        verify_strictly(alice, alice.certificate)

    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
        ],
        ids=["P-384", "RSA-2048", "Ed25519"],
    )
    def test_each_kind_of_key_signs_and_is_signed(self, key: PrivateKey) -> None:
        """Each kind of key can sign, and be signed."""
        root = Authority.create(key=key)
        verify_strictly(root.issue("alice", key=key), root.certificate)


class TestIssuing:
    """The options say what they do."""

    def test_a_leaf_is_for_a_client_by_default(self) -> None:
        """A leaf is for a client, signs, and is no CA."""
        leaf = Authority.create().issue("alice").certificate
        assert leaf.subject.rfc4514_string() == "CN=alice"
        assert leaf.issuer.rfc4514_string() == "CN=Test CA"
        assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
        assert not extension(leaf, x509.BasicConstraints).ca
        assert extension(leaf, x509.KeyUsage).digital_signature
        assert not extension(leaf, x509.KeyUsage).key_cert_sign
        assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        with pytest.raises(x509.ExtensionNotFound):
            extension(leaf, x509.SubjectAlternativeName)
        assert leaf.not_valid_before_utc < datetime.now(UTC) < leaf.not_valid_after_utc

    def test_a_root_signs_certificates_and_crls(self) -> None:
        """A root signs certificates and CRLs, critically, and is its own issuer."""
        certificate = Authority.create("Root").certificate
        assert certificate.subject == certificate.issuer
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert (usage.value.key_cert_sign, usage.value.crl_sign) == (True, True)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert constraints.value == x509.BasicConstraints(ca=True, path_length=None)

    def test_the_holder_sends_the_intermediates(self) -> None:
        """The holder sends what is below the root, its issuer first."""
        root = Authority.create()
        upper = root.intermediate("upper")
        lower = upper.intermediate("lower")
        assert root.issue("alice").intermediates == ()
        assert upper.issue("alice").intermediates == (upper.certificate,)
        assert lower.issue("alice").intermediates == (lower.certificate, upper.certificate)

    def test_each_name_is_of_its_own_kind(self) -> None:
        """Each name lands in its own kind, and in order."""
        san = extension(
            Authority.create()
            .issue(
                "alice",
                dns_names=["a.example", "b.example"],
                ip_addresses=["192.0.2.1", "::1"],
                uris=["spiffe://td/x"],
                email_addresses=["alice@example.org"],
            )
            .certificate,
            x509.SubjectAlternativeName,
        )
        assert san.get_values_for_type(x509.DNSName) == ["a.example", "b.example"]
        assert san.get_values_for_type(x509.IPAddress) == [
            ip_address("192.0.2.1"),
            ip_address("::1"),
        ]
        assert san.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://td/x"]
        assert san.get_values_for_type(x509.RFC822Name) == ["alice@example.org"]

    def test_a_subject_has_o_and_ou_before_cn(self) -> None:
        """O and OU go before CN; a whole subject goes in their place."""
        root = Authority.create()
        leaf = root.issue("alice", organization="Acme", organizational_unit="Door").certificate
        assert leaf.subject.rfc4514_string() == "CN=alice,OU=Door,O=Acme"
        other = x509.Name.from_rfc4514_string("CN=two,CN=one")
        assert root.issue("alice", subject=other).certificate.subject == other

    @pytest.mark.parametrize(
        ("usages", "expected"),
        [
            (("server_auth",), [ExtendedKeyUsageOID.SERVER_AUTH]),
            (
                ("client_auth", "server_auth"),
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH],
            ),
            (("any_extended_key_usage",), [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        ],
    )
    def test_the_extended_key_usages_are_those_named(
        self, usages: Sequence[str], expected: list[x509.ObjectIdentifier]
    ) -> None:
        """The extended key usages are those named."""
        leaf = Authority.create().issue("alice", usages=usages).certificate
        assert list(extension(leaf, x509.ExtendedKeyUsage)) == expected

    def test_no_usage(self) -> None:
        """No usages, no extension."""
        leaf = Authority.create().issue("alice", usages=()).certificate
        with pytest.raises(x509.ExtensionNotFound):
            extension(leaf, x509.ExtendedKeyUsage)

    def test_validity_begins_an_hour_ago(self) -> None:
        """Validity runs from an hour before ``now``, for the days given."""
        leaf = Authority.create().issue("alice", now=NOW, days=2).certificate
        assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
        assert leaf.not_valid_after_utc == NOW + timedelta(days=2)

    def test_expired_and_not_yet(self) -> None:
        """One end of the validity is enough to say."""
        root, day = Authority.create(), timedelta(days=1)
        expired = root.issue("alice", now=NOW, not_after=NOW - day).certificate
        assert expired.not_valid_before_utc < expired.not_valid_after_utc == NOW - day
        early = root.issue("alice", now=NOW, not_before=NOW + 999 * day).certificate
        assert early.not_valid_before_utc == NOW + 999 * day < early.not_valid_after_utc

    def test_same_key(self) -> None:
        """The same key issued again makes another certificate."""
        root = Authority.create()
        alice = root.issue("alice")
        again = root.issue("alice", key=alice.private_key)
        assert again.certificate.public_key() == alice.certificate.public_key()
        assert again.der != alice.der

    def test_the_serial_number_can_be_chosen(self) -> None:
        """The serial number is the one given."""
        assert Authority.create().issue("alice", serial=7).certificate.serial_number == 7

    def test_a_weak_key_can_be_had_for_servers_to_refuse(self) -> None:
        """An RSA-1024 leaf can be had, for servers to refuse."""
        key = rsa.generate_private_key(65537, 1024)
        leaf = Authority.create().issue("alice", key=key).certificate
        assert leaf.public_key() == key.public_key()

    def test_a_sha1_signature_can_be_had_by_hand(self) -> None:
        """So can a leaf signed with SHA-1, by hand."""
        root = Authority.create(key=rsa.generate_private_key(65537, 2048))
        weak = sha1_signed(root, root.issue("alice"))
        assert isinstance(weak.certificate.signature_hash_algorithm, SHA1)
        verify_strictly(weak, root.certificate)

    def test_the_digest_is_sha256_unless_chosen(self) -> None:
        """SHA-256 unless another is said."""
        root = Authority.create()
        assert isinstance(root.certificate.signature_hash_algorithm, SHA256)
        leaf = root.issue("alice", hash_algorithm=SHA384()).certificate
        assert isinstance(leaf.signature_hash_algorithm, SHA384)

    def test_extra_extensions(self) -> None:
        """Extensions are added, or replace the one of their kind."""
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        leaf = (
            Authority.create()
            .issue("alice", extra_extensions=[(unknown, True), (usage, True)])
            .certificate
        )
        assert leaf.extensions.get_extension_for_oid(unknown.oid).critical
        assert extension(leaf, x509.ExtendedKeyUsage) == usage

    def test_without_a_subject_the_san_is_critical(self) -> None:
        """Without a subject the SAN is critical, as RFC 5280 section 4.1.2.6 has it."""
        leaf = Authority.create().issue(None, uris=["spiffe://td/x"]).certificate
        assert not list(leaf.subject)
        assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical

    def test_cross_signed(self) -> None:
        """One CA's key and name under two roots: a leaf leads to either."""
        old, new = Authority.create("old"), Authority.create("new")
        issuing = old.intermediate("issuing")
        cross = new.intermediate("issuing", key=issuing.private_key)
        alice = issuing.issue("alice")
        verify_strictly(alice, old.certificate)
        crossed = Credential(alice.certificate, alice.private_key, (cross.certificate,))
        verify_strictly(crossed, new.certificate)

    def test_any_issuer(self) -> None:
        """Any credential can be made to issue, as a hostile holder would make it."""
        alice = self_signed("alice")
        mallory = Authority(alice.certificate, alice.private_key).issue("mallory")
        assert mallory.certificate.issuer == alice.certificate.subject
        mallory.certificate.verify_directly_issued_by(alice.certificate)

    def test_foreign_key_identifier(self) -> None:
        """The authority key identifier is the one the issuer states, however it was computed."""
        stated = x509.SubjectKeyIdentifier(b"mine")
        root = Authority.create(extra_extensions=[(stated, False)])
        leaf = root.issue("alice").certificate
        assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier == b"mine"

    def test_no_key_identifier(self) -> None:
        """An old CA that states none gets the usual one."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name.from_rfc4514_string("CN=old")
        old = (
            x509.CertificateBuilder(name, name, key.public_key(), 1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=1))
            .sign(key, SHA256())
        )
        leaf = Authority(old, key).issue("alice").certificate
        expected = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        assert extension(leaf, x509.AuthorityKeyIdentifier) == expected


class TestSelfSigned:
    """What pins look like that have no CA."""

    def test_it_is_no_ca_unless_asked(self) -> None:
        """CA:FALSE unless asked, and its own issuer."""
        leaf = self_signed("alice").certificate
        leaf.verify_directly_issued_by(leaf)
        assert not extension(leaf, x509.BasicConstraints).ca
        assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]

    def test_a_ca_is_as_openssl_req_x509_makes_it(self) -> None:
        """CA:TRUE as ``openssl req -x509`` has it: no usages of either kind."""
        leaf = self_signed("alice", is_ca=True).certificate
        assert extension(leaf, x509.BasicConstraints).ca
        for kind in (x509.KeyUsage, x509.ExtendedKeyUsage):
            with pytest.raises(x509.ExtensionNotFound):
                leaf.extensions.get_extension_for_class(kind)


class TestCredential:
    """The forms in which a credential is had."""

    def test_the_pem_is_the_chain_leaf_first(self) -> None:
        """The PEM is the chain, leaf first."""
        alice = Authority.create().intermediate().issue("alice")
        assert tuple(x509.load_pem_x509_certificates(alice.pem)) == alice.chain
        assert alice.chain[0] == alice.certificate
        assert len(alice.chain) == 2

    def test_key_pem(self) -> None:
        """The keys load again, and are the certificates'."""
        root = Authority.create()
        for holder in (root, root.issue("alice")):
            assert holder.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
            key = load_pem_private_key(holder.key_pem, None)
            assert key.public_key() == holder.certificate.public_key()

    def test_authority_pem(self) -> None:
        """An authority's PEM is its own certificate."""
        root = Authority.create()
        assert x509.load_pem_x509_certificates(root.pem) == [root.certificate]

    def test_the_fingerprint_is_lowercase_hexadecimal(self) -> None:
        """The fingerprint is lowercase hexadecimal."""
        alice = self_signed("alice")
        assert bytes.fromhex(alice.sha256) == alice.certificate.fingerprint(SHA256())
        assert alice.sha256 == alice.sha256.lower()
        assert x509.load_der_x509_certificate(alice.der) == alice.certificate

    def test_no_repr_shows_a_key(self) -> None:
        """No repr tells of a key."""
        root = Authority.create()
        for holder in (root, root.intermediate(), root.issue("alice")):
            assert "private" not in repr(holder).lower()
            assert "key" not in repr(holder).lower()
