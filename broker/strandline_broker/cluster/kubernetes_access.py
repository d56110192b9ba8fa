"""Where the API server is and who we are to it: from the pod's service account, or from a kubeconfig file.

Used by `open_kubernetes_store` and tests. Reads files once, at start; only a token in a file is read again, because the
kubelet replaces it while a broker runs.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from .store import StoreError

logger = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A token in a file is trusted for so long, in seconds. The kubelet replaces it when a fifth of its life is left.
_TOKEN_TRUSTED_S: Final = 60.0


class AccessError(StoreError):
    """The way to the API server is not described, or in a way that is not understood. The message is for the user."""


class BearerToken:
    """A token that proves who we are: fixed, or in a file that changes.

    `clock` returns seconds that only rise.
    """

    def __init__(
        self, *, text: str = "", path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        assert (path is None) != (not text), "one of both"
        self._text = text
        self._path = path
        self._clock = clock
        self._read_at = float("-inf")

    def current(self) -> str:
        """Return the token. Raises AccessError when the file was never readable."""
        if self._path is not None and self._clock() - self._read_at >= _TOKEN_TRUSTED_S:
            self._read(self._path)
        return self._text

    def reload(self) -> bool:
        """Read the file again, after the server refused the token; return whether there is another one now."""
        if self._path is None:
            return False
        before = self._text
        self._read(self._path)
        return self._text != before

    def _read(self, path: Path) -> None:
        self._read_at = self._clock()
        try:
            # A few hundred bytes in memory: the kubelet's volumes are a tmpfs.
            text = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            text = ""
            logger.warning("the token in %s cannot be read: %s", path, error)
        if text:
            self._text = text
        elif not self._text:
            raise AccessError(f"there is no token in {path}")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one API server.

    `server`: https://host:port, perhaps with a path, without a slash at the end. `namespace`: of the service account or
    the kubeconfig's context. `tls` is None for http alone, which only tests use.
    """

    server: str
    namespace: str
    tls: ssl.SSLContext | None = None
    token: BearerToken | None = None
    server_name: str | None = None


def from_pod(folder: Path = SERVICE_ACCOUNT) -> Access:
    """Return what every pod knows: variables of the environment and the files of its service account.

    Raises AccessError.
    """
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST", ""),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host:
        raise AccessError("KUBERNETES_SERVICE_HOST is not set: this process does not run in a pod")
    try:
        tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        namespace = (folder / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise AccessError(
            f"the service account of this pod cannot be read: {error}; is automountServiceAccountToken off?"
        ) from error
    host = f"[{host}]" if ":" in host else host
    token = BearerToken(path=folder / "token")
    token.current()
    return Access(f"https://{host}:{port}", namespace or "default", tls, token)


def from_kubeconfig(path: Path) -> Access:
    """Return the cluster and the user of the current context of a kubeconfig file.

    Certificates, and tokens fixed or in a file, are understood. Programs that fetch credentials (`exec`), proxies and
    impersonation are not: brokers run in pods. Raises AccessError.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AccessError(f"the kubeconfig {path} cannot be read: {error}") from error
    try:
        context = _named(config, "contexts", "context", config.get("current-context") or "")
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"]) if context.get("user") else {}
        return _access(path.parent, cluster, user, context.get("namespace") or "default")
    except AccessError as error:
        raise AccessError(f"the kubeconfig {path}: {error}") from error
    except OSError as error:  # of a file that it names, or of OpenSSL
        raise AccessError(f"the kubeconfig {path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AccessError(f"the kubeconfig {path} is not understood: {error!r}") from error


def _named(config: dict[str, Any], group: str, key: str, name: str) -> dict[str, Any]:
    for entry in config.get(group) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry.get(key) or {}
            return found
    raise AccessError(f"there is no {key} named {name!r}")


def _access(folder: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str) -> Access:
    unknown = sorted(
        {"exec", "auth-provider", "username", "as"}.intersection(user) | {"proxy-url"}.intersection(cluster)
    )
    if unknown:
        raise AccessError(
            f"{', '.join(unknown)} is not supported; use a certificate, a token or a tokenFile (kubectl create token)"
        )
    server = str(cluster["server"]).rstrip("/")
    token = None
    if user.get("tokenFile"):
        token = BearerToken(path=folder / user["tokenFile"])
        token.current()
    elif user.get("token"):
        token = BearerToken(text=user["token"])
    tls = _tls(folder, cluster, user) if server.startswith("https://") else None
    return Access(server, namespace, tls, token, cluster.get("tls-server-name"))


def _tls(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    authorities = _content(folder, cluster, "certificate-authority")
    # Without authorities of its own the system's are asked, as kubectl does.
    context = ssl.create_default_context(cadata=authorities.decode("ascii") if authorities else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _content(folder, user, "client-certificate"), _content(folder, user, "client-key")
    if certificate and key:
        # OpenSSL reads both from a file only. The folder is this user's alone, and gone at once.
        with tempfile.TemporaryDirectory(prefix="strandline-") as private:
            file = Path(private) / "client.pem"
            file.touch(mode=0o600)
            file.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(file)
    return context


def _content(folder: Path, section: dict[str, Any], key: str) -> bytes:
    """Return what stands in `<key>-data`, or in the file that `<key>` names; paths count from the kubeconfig's folder."""
    if section.get(f"{key}-data"):
        try:
            return base64.b64decode(section[f"{key}-data"], validate=True)
        except binascii.Error as error:
            raise AccessError(f"{key}-data is not base64") from error
    if section.get(key):
        return (folder / str(section[key])).read_bytes()
    return b""


def find_access(kubeconfig: str | None = None) -> Access:
    """Return the way to the API server: `kubeconfig` if given, else the pod's, else $KUBECONFIG or ~/.kube/config.

    Raises AccessError.
    """
    if kubeconfig:
        return from_kubeconfig(Path(kubeconfig))
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return from_pod()
    paths = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if len(paths) > 1:
        raise AccessError("KUBECONFIG names several files; name one")
    path = paths[0] if paths else Path.home() / ".kube" / "config"
    if not path.exists():
        raise AccessError(f"this is no pod, and there is no kubeconfig at {path}; set KUBECONFIG")
    return from_kubeconfig(path)
