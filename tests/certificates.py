"""Certificates for tests, made by the openssl of the system."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    def replace(self, other: Issued) -> None:
        """Put another certificate and its key where these are, as an administrator would."""
        for ours, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = ours.with_suffix(".new")
            shutil.copyfile(theirs, fresh)
            fresh.replace(ours)


@dataclass(frozen=True, kw_only=True)
class TlsTable:
    """What [tls] says, without a file to read it from."""

    certificate: Path | None = None
    key: Path | None = None
    key_password_file: Path | None = None
    ca: Path | None = None
    client_certificates: Literal["required", "none"] = "required"


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        _openssl(
            "req", "-x509", "-nodes", *_NEW_KEY, "-days", "3650", "-subj", "/CN=An authority",
            "-keyout", self._key, "-out", self.certificate,
        )  # fmt: skip

    def issue(
        self,
        name: str,
        *,
        days: int = 365,
        host: str = "127.0.0.1",
        password: str = "",
        rsa_bits: int = 0,
    ) -> Issued:
        """A certificate for `name`.

        Args:
            name: Its common name, and that of its files.
            days: How long it is valid from now on; negative for one that has expired.
            host: The address that it is issued for; "" for none.
            password: What its key is encrypted with; "" leaves it plain.
            rsa_bits: How long its RSA key is; 0 makes one of ECDSA.
        """
        issued = Issued(certificate=self.folder / f"{name}.crt", key=self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{host}\n" if host else "basicConstraints=CA:no\n")
        secret = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        new_key = ("-newkey", f"rsa:{rsa_bits}") if rsa_bits else _NEW_KEY
        _openssl(
            "req", *new_key, *secret, "-subj", f"/CN={name}",
            "-keyout", issued.key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-days", str(days), "-extfile", extensions, "-out", issued.certificate,
        )  # fmt: skip
        return issued


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
