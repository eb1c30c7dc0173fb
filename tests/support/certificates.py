"""An authority, and certificates that it signs for 127.0.0.1, made by openssl."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Authority:
    """Signs what it is asked to; ``ca`` is its own certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
            "-keyout", self._key, "-out", self.ca,
        )  # fmt: skip

    def certificate(
        self, name: str, *, days: int = 2, key: Sequence[str] = ("rsa:2048",), subject: str = ""
    ) -> tuple[Path, Path]:
        """A certificate and its private key (PKCS 8), as PEM files; with negative ``days`` it has expired."""
        private, request, certificate, extensions = (
            self._folder / f"{name}.{kind}" for kind in ("key", "csr", "pem", "ext")
        )
        extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        _openssl(
            "req",
            "-newkey",
            *key,
            "-nodes",
            "-subj",
            subject or f"/CN={name}",
            "-keyout",
            private,
            "-out",
            request,
        )
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-days", days,
            "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, private

    def fingerprint(self, certificate: Path) -> str:
        """SHA-256 of a certificate, as openssl prints it."""
        command = ["openssl", "x509", "-in", str(certificate), "-noout", "-fingerprint", "-sha256"]
        return subprocess.check_output(command, text=True, timeout=60).partition("=")[2].strip()

    def revoke(self, certificate: Path) -> Path:
        """A revocation list with this one, as a PEM file."""
        database, settings, revoked = (self._folder / name for name in ("index.txt", "ca.cnf", "crl.pem"))
        database.touch()
        settings.write_text(
            f"[ca]\ndefault_ca=a\n[a]\ndatabase={database}\ndefault_md=sha256\ndefault_crl_days=2\n"
        )
        ca = ("ca", "-config", settings, "-cert", self.ca, "-keyfile", self._key)
        _openssl(*ca, "-revoke", certificate)
        _openssl(*ca, "-gencrl", "-out", revoked)
        return revoked


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
