"""TLS to a real server: a client that trusts its certificate works, and one that does not sends nothing.

Skipped where the server on this machine was built without TLS.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from streamq import Queue, Settings, Worker
from streamq.errors import ServerNotFound, StoreUnavailable
from streamq.exporter import Exporter
from tests.integration.test_compose import free_port
from tests.servers import RedisServer


class Authority:
    """A certificate authority, and what it has signed, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bank")])
        self._certificate = self._build(self._name, self._key.public_key(), authority=True)
        self.file = self._write("ca.pem", self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._build(subject, key.public_key(), authority=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = certificate.public_bytes(serialization.Encoding.PEM)
        return self._write(f"{name}.pem", public), self._write(f"{name}.key", private)

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(addresses, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[str]:
    """The address of a server that speaks TLS alone and wants a client's certificate."""
    certificate, key = authority.issue("server")
    port = free_port()
    arguments = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
                 "--tls-ca-cert-file", str(authority.file), "--tls-auth-clients", "yes")  # fmt: skip
    try:
        server = RedisServer(arguments=arguments)
    except ServerNotFound as error:
        pytest.skip(str(error))
    looked = subprocess.run([str(server.binary), "--tls-port", "-1"], capture_output=True, text=True, check=False)
    if "Bad directive" in looked.stdout + looked.stderr:
        pytest.skip(f"{server.binary} was built without TLS")
    with server:
        yield f"rediss://127.0.0.1:{port}/0"


def trusted(address: str, authority: Authority) -> str:
    certificate, key = authority.issue("client")
    return f"{address}?ssl_ca_certs={authority.file}&ssl_certfile={certificate}&ssl_keyfile={key}"


async def run(job: Any) -> object:
    return job.data


async def test_a_job_goes_to_a_worker_and_back_over_tls(secure: str, authority: Authority) -> None:
    settings = Settings(redis_url=trusted(secure, authority))
    async with Queue("q", settings=settings) as queue, Worker("q", run, settings=settings):
        job = await queue.add("echo", {"amount": "1.00"})
        assert await job.result(timeout=30) == {"amount": "1.00"}
        large = await queue.add("echo", b"x" * 900_000)
        assert await large.result(timeout=30) == b"x" * 900_000


async def test_an_exporter_speaks_tls(secure: str, authority: Authority) -> None:
    exporter = Exporter(["q"], Settings(redis_url=trusted(secure, authority)))
    try:
        assert await asyncio.to_thread(exporter.ready) == ""
    finally:
        exporter.close()


async def test_a_server_that_nobody_vouches_for_is_refused(secure: str, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("client")
    for file in (Authority(tmp_path).file, None):
        url = f"{secure}?ssl_certfile={certificate}&ssl_keyfile={key}" + (f"&ssl_ca_certs={file}" if file else "")
        async with Queue("q", settings=Settings(redis_url=url, timeout=1)) as queue:
            with pytest.raises(StoreUnavailable, match=r"(?i)certificate verify failed"):
                await queue.add("echo")


async def test_a_client_that_shows_no_certificate_is_refused(secure: str, authority: Authority) -> None:
    url = f"{secure}?ssl_ca_certs={authority.file}"
    async with Queue("q", settings=Settings(redis_url=url, timeout=1)) as queue:
        with pytest.raises(StoreUnavailable):
            await queue.add("echo")
