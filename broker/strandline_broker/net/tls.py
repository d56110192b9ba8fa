"""TLS settings of a listener, and certificates that change on disk without a restart.

Used by `net.server`.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import Any

# RFC 4514, section 3: the short names that Kafka's principals use.
_ATTRIBUTE_NAMES = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """PEM files of a listener. With `client_ca_path`, clients must show a certificate signed by it.

    Without `client_required` they may have none, but not one signed by somebody else.
    """

    cert_path: str
    key_path: str
    client_ca_path: str | None = None
    client_required: bool = True


def server_context(config: TlsConfig) -> ssl.SSLContext:
    """Load the files. Raises OSError (ssl.SSLError included) when they are missing or do not fit together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.cert_path, config.key_path)
    if config.client_ca_path is not None:
        context.verify_mode = ssl.CERT_REQUIRED if config.client_required else ssl.CERT_OPTIONAL
        context.load_verify_locations(config.client_ca_path)
    return context


def principal_of(certificate: dict[str, Any] | None) -> str:
    """Return `User:` and the distinguished name (RFC 4514) of a certificate as `ssl` describes it."""
    if not certificate:
        return "User:ANONYMOUS"
    names = []
    for relative_name in reversed(certificate.get("subject", ())):
        pairs = (f"{_ATTRIBUTE_NAMES.get(name, name)}={_escape(value)}" for name, value in relative_name)
        names.append("+".join(pairs))
    return "User:" + ",".join(names)


def _escape(value: str) -> str:
    escaped = "".join("\\" + char if char in ',+"\\<>;' else char for char in value)
    if escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return "\\" + escaped if escaped[:1] in (" ", "#") else escaped


class ReloadingContext:
    """The current context of a listener; `check` replaces it when the files changed and can be used.

    Established connections keep the context that they were made with.
    """

    def __init__(self, config: TlsConfig) -> None:
        self.config = config
        self._signature = self._read_signature()
        self.current = server_context(config)

    def _read_signature(self) -> tuple[tuple[int, int, int], ...]:
        paths = (self.config.cert_path, self.config.key_path, self.config.client_ca_path)
        found = [os.stat(path) for path in paths if path is not None]  # noqa: PTH116  # follows Kubernetes' symlinks
        return tuple((status.st_mtime_ns, status.st_ino, status.st_size) for status in found)

    def check(self) -> bool:
        """Reload if the files changed; return whether they did.

        Raises OSError while they cannot be used (half written, key and certificate apart): the old
        certificate stays, and the next call tries again.
        """
        signature = self._read_signature()
        if signature == self._signature:
            return False
        self.current = server_context(self.config)
        self._signature = signature
        return True
