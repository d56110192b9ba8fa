"""Where the API server is, and who we are to it."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from tests.unit.cluster.support import run
from tests.unit.net.certificates import Authority

from strandline_broker.cluster.kubernetes_access import (
    Access,
    AccessError,
    BearerToken,
    find_access,
    from_kubeconfig,
    from_pod,
)
from strandline_broker.cluster.kubernetes_api import KubernetesApi
from strandline_broker.cluster.store import Unavailable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def write_kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any], **context: str) -> Path:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "x", "user": "x"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", **context}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


# -- tokens --


def test_a_token_in_a_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    path, clock = tmp_path / "token", Clock()
    path.write_text("one\n")
    token = BearerToken(path=path, clock=clock)
    assert token.current() == "one"
    path.write_text("two\n")
    clock.now += 59
    assert token.current() == "one"
    clock.now += 1
    assert token.current() == "two"
    path.write_text("three\n")
    assert token.reload()
    assert not token.reload()
    assert token.current() == "three"


def test_a_token_file_that_is_replaced_at_this_moment_leaves_the_token_of_before(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(AccessError, match="no token in"):
        BearerToken(path=path).current()
    path.write_text("one")
    token = BearerToken(path=path)
    assert token.current() == "one"
    path.write_text("")
    assert not token.reload()
    path.unlink()
    assert not token.reload()
    assert token.current() == "one"


# -- pods --


def test_a_pod_finds_its_api_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.ca_path.read_bytes())
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "namespace").write_text("kafka")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    access = from_pod(tmp_path)
    assert (access.server, access.namespace) == ("https://[fd00::1]:6443", "kafka")
    assert access.token is not None
    assert access.token.current() == "secret"
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(AccessError, match="service account"):
        from_pod(tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(AccessError, match="KUBERNETES_SERVICE_HOST"):
        from_pod(tmp_path)


# -- kubeconfig --


def test_a_kubeconfig_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "token").write_text("from a file")
    cluster = {
        "server": "https://[::1]:6443/prefix/",
        "certificate-authority": authority.ca_path.name,
        "tls-server-name": "kubernetes",
    }
    access = from_kubeconfig(write_kubeconfig(tmp_path, cluster, {"tokenFile": "token"}, namespace="kafka"))
    assert (access.server, access.namespace) == ("https://[::1]:6443/prefix", "kafka")
    assert access.server_name == "kubernetes"
    assert access.token is not None
    assert access.token.current() == "from a file"
    assert access.tls is not None
    assert len(access.tls.get_ca_certs()) == 1
    skipping = {"server": "http://h:1", "insecure-skip-tls-verify": True}
    access = from_kubeconfig(write_kubeconfig(tmp_path, skipping, {"token": "fixed"}))
    assert (access.namespace, access.tls) == ("default", None)
    assert access.token is not None
    assert (access.token.current(), access.token.reload()) == ("fixed", False)


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({"server": "https://h"}, {"exec": {"command": "aws"}}, "exec is not supported"),
        ({"server": "https://h", "proxy-url": "http://p"}, {}, "proxy-url is not supported"),
        ({}, {}, "not understood"),
        ({"server": "https://h", "certificate-authority": "missing.pem"}, {}, "missing.pem"),
        ({"server": "https://h", "certificate-authority-data": "%%"}, {}, "not base64"),
        (
            {"server": "https://h"},
            {"client-certificate-data": "AAAA", "client-key-data": "AAAA"},
            "kubeconfig",
        ),
        ({"server": "http://h"}, {"tokenFile": "missing"}, "no token in"),
    ],
)
def test_what_is_not_understood_is_said(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    with pytest.raises(AccessError, match=message):
        from_kubeconfig(write_kubeconfig(tmp_path, cluster, user))


@pytest.mark.parametrize("text", ["", "[]", "a: [", "current-context: gone"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(AccessError, match=str(path)):
        from_kubeconfig(path)


def test_where_access_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AccessError, match="set KUBECONFIG"):
        find_access()
    path = write_kubeconfig(tmp_path, {"server": "http://named"}, {})
    assert find_access(str(path)).server == "http://named"
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert find_access().server == "http://named"
    monkeypatch.setenv("KUBECONFIG", f"{path}:{path}")
    with pytest.raises(AccessError, match="several"):
        find_access()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(AccessError, match="service account"):
        find_access()
    assert find_access(str(path)).server == "http://named"


# -- both sides prove who they are --


def test_certificates_of_both_sides_are_checked(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server", "kube-apiserver")
    client = authority.issue("client", "admin", "system:masters")
    stranger = Authority(tmp_path, "stranger")
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca_path))
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_cert_chain(server.cert_path, server.key_path)

    def data(path: str | Path) -> str:
        return base64.b64encode(Path(path).read_bytes()).decode()

    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        subject = dict(entry[0] for entry in request.transport.get_extra_info("peercert")["subject"])
        return web.json_response(subject)

    async def ask(access: Access) -> Any:
        api = KubernetesApi(access)
        try:
            return await api.request("GET", "/who")
        finally:
            await api.close()

    async def body() -> None:
        app = web.Application()
        app.router.add_get("/who", who)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        user = {
            "client-certificate-data": data(client.cert_path),
            "client-key-data": data(client.key_path),
        }
        trusted = {"server": url, "certificate-authority-data": data(authority.ca_path)}
        access = from_kubeconfig(write_kubeconfig(tmp_path, trusted, user))
        assert await ask(access) == {"organizationName": "system:masters", "commonName": "admin"}
        with pytest.raises(Unavailable):
            await ask(from_kubeconfig(write_kubeconfig(tmp_path, trusted, {})))
        distrusted = {"server": url, "certificate-authority-data": data(stranger.ca_path)}
        with pytest.raises(Unavailable, match="certificate verify failed"):
            await ask(from_kubeconfig(write_kubeconfig(tmp_path, distrusted, user)))
        await runner.cleanup()

    run(body())
