"""The cluster's certificate authority, keys and certificates (made with `cryptography`, valid for 30 days)."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = datetime.timedelta(days=30)
SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority kept in a folder; what it has issued is not issued again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        if not self.pair.certificate.exists():
            self._make()
        self._key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        self._certificate = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())

    def client(self, file: str, user: str, group: str = "") -> Pair:
        """Return the certificate by which `user` of `group` shows itself to the API server."""
        return self._issue(file, user, group, (), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, file: str, user: str, names: Sequence[str]) -> Pair:
        """Return the certificate of a server that is reached by these names and addresses."""
        return self._issue(file, user, "", names, ExtendedKeyUsageOID.SERVER_AUTH)

    def signing_key(self) -> Pair:
        """Return the pair that service account tokens are signed and checked with (public key, private key)."""
        pair = Pair(self.folder / "accounts.pub", self.folder / "accounts.key")
        if not pair.certificate.exists():
            key = rsa.generate_private_key(65537, 2048)
            _write_key(pair.key, key)
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            pair.certificate.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
        return pair

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("minicolab-cluster")
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(self.pair.key, key)
        self.pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(
        self, file: str, user: str, group: str, names: Sequence[str], purpose: x509.ObjectIdentifier
    ) -> Pair:
        pair = Pair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        if pair.certificate.exists():
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(user, group), self._certificate.subject, key.public_key())
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False
            )
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write_key(pair.key, key)
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
    )


def _name(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_key(file: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
