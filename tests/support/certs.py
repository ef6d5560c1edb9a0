"""A certificate authority, a server certificate and a client certificate, made at run time."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Certs(NamedTuple):
    """Paths of PEM files, as text."""

    ca_file: str
    cert_file: str
    key_file: str
    client_cert_file: str
    client_key_file: str


def make_certs(
    directory: Path,
    *,
    hosts: tuple[str | x509.GeneralName, ...] = ("localhost", "127.0.0.1", "::1"),
    name: str = "server",
    valid: int = 1,
) -> Certs:
    """Make a CA and two certificates signed by it.

    Args:
        directory: where the files go; created if need be.
        hosts: names and addresses the server certificate is for (subject alternative names), or others.
        name: its common name.
        valid: days from now until all of them expire; negative: the server's expired that long ago.
    """
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    start = now - datetime.timedelta(days=abs(valid) + 1)
    end = now + datetime.timedelta(days=valid)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "natsproto test CA")])

    def certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
        )

    def alternative(host: str | x509.GeneralName) -> x509.GeneralName:
        if isinstance(host, x509.GeneralName):
            return host
        try:
            return x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    def write(name: str, data: bytes) -> str:
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
        return str(path)

    def write_pair(
        name: str, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey
    ) -> tuple[str, str]:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        signed = (
            builder.add_extension(usage, critical=False)
            .add_extension(identifier, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return write(f"{name}.pem", signed.public_bytes(serialization.Encoding.PEM)), write(
            f"{name}.key", pem
        )

    ca_builder = (
        certificate("natsproto test CA", ca_key)
        .not_valid_after(now + datetime.timedelta(days=abs(valid)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
    )
    ca = ca_builder.sign(ca_key, hashes.SHA256())
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = certificate(name, server_key).not_valid_after(end)
    if hosts:
        names = x509.SubjectAlternativeName([alternative(host) for host in hosts])
        server = server.add_extension(names, critical=False)
    client_key = ec.generate_private_key(ec.SECP256R1())
    client = certificate("client", client_key).not_valid_after(now + datetime.timedelta(days=abs(valid)))
    return Certs(
        write("ca.pem", ca.public_bytes(serialization.Encoding.PEM)),
        *write_pair("server", server, server_key),
        *write_pair("client", client, client_key),
    )
