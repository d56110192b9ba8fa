"""`strandline dev` as a process, over brokers that only keep a Lease."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from strandline_broker.server.config import load
from strandline_operator.cli.dev import DevOptions, listener_of, make_processes, racks_of
from strandline_operator.cli.layout import DataDir, LayoutError, choose_ports
from strandline_operator.cli.processes import Restarts

HERE = Path(__file__).parent
DEADLINE_S = 20.0
FAKE = str(HERE / "fake_broker.py")
# Runs the real command line with the fake broker in place of the real one.
DRIVER = """
import sys
from strandline_operator.cli import dev, main
fail = {fail!r}
dev.broker_command = lambda settings: [sys.executable, {fake!r}, *fail, *settings]
main(prog_name="strandline")
"""
TOPIC = """
apiVersion: strandline.io/v1alpha1
kind: Topic
metadata: {name: %s}
spec: {clusterRef: {name: somewhere}, partitions: %d}
"""


class Dev:
    """A running `strandline dev`; its lines can be awaited."""

    def __init__(self, data_dir: Path, *options: str, fail: tuple[str, ...] = ()) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                DRIVER.format(fake=FAKE, fail=fail),
                "dev",
                "--port",
                "0",
                "--data-dir",
                str(data_dir),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._pump = threading.Thread(target=self._read, daemon=True)
        self._pump.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))

    def line(self, pattern: str) -> str:
        """Wait for a line that matches, and return it."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                self.lines.append(self._queue.get(timeout=0.2))
                if re.search(pattern, self.lines[-1]):
                    return self.lines[-1]
        raise AssertionError(f"no line like {pattern!r} in {self.lines}")

    def pid(self, broker_id: int) -> int | None:
        try:
            return int((self.data_dir / f"broker-{broker_id}" / "pid").read_text())
        except FileNotFoundError:
            return None

    def stop(self) -> int:
        """Stop with SIGTERM and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        """Wait for it to end by itself and return the exit code."""
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self._pump.join(5)
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextlib.contextmanager
def running(data_dir: Path, *options: str) -> Iterator[Dev]:
    dev = Dev(data_dir, *options)
    try:
        dev.line("^ready ")
        yield dev
    finally:
        code = dev.stop()
    assert code == 0


def strandline(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "strandline_operator.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def topics(data_dir: Path) -> dict[str, Any]:
    code, out, err = strandline("topics", "-o", "json", "--data-dir", str(data_dir))
    assert code == 0, err
    return {item["metadata"]["name"]: item for item in json.loads(out)["items"]}


def eventually(dev: Dev, condition: Callable[[], bool]) -> None:
    """Wait until a condition of the running supervisor holds; that it ends meanwhile is a failure."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = dev.process.wait(0.02)
            raise AssertionError(f"the supervisor ended with {code}")


def alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_ready_restart_and_graceful_end(tmp_path: Path) -> None:
    with running(tmp_path, "--brokers", "2") as dev:
        assert re.fullmatch(r"ready bootstrap=127\.0\.0\.1:\d+,127\.0\.0\.1:\d+", dev.lines[-1])
        first, other = dev.pid(0), dev.pid(1)
        assert first is not None
        assert other is not None
        os.kill(first, signal.SIGKILL)
        dev.line(r"broker 0 ended \(SIGKILL\); starting it again")
        eventually(dev, lambda: dev.pid(0) not in (None, first))
        assert dev.pid(1) == other
        pids = [dev.pid(0), other]
    assert not any(alive(pid) for pid in pids if pid is not None)
    assert dev.pid(0) is None, "a pid file that outlives the process could name somebody else's"


def test_the_same_folder_resumes_and_belongs_to_one_supervisor(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "orders.yaml").write_text(TOPIC % ("orders", 3))
    data = tmp_path / "data"
    with running(data, "--brokers", "1", "--manifests", str(manifests)):
        before = topics(data)["orders"]
        assert before["status"]["partitions"] == 3, "ready means that the manifests are in effect"
        second = Dev(data, "--brokers", "1")
        line = second.line("is in use by another")
        assert "choose another --data-dir" in line
        assert second.ended() == 1
    with running(data, "--brokers", "1"):
        after = topics(data)["orders"]
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["conditions"][0]["status"] == "True"


def test_brokers_end_with_their_supervisor_or_are_found_by_the_next(tmp_path: Path) -> None:
    dev = Dev(tmp_path, "--brokers", "1")
    dev.line("^ready ")
    orphan = dev.pid(0)
    assert orphan is not None
    dev.process.kill()
    dev.stop()
    assert alive(orphan), "the fake does not end with its supervisor; the real one does"
    with running(tmp_path, "--brokers", "1") as again:
        assert any("outlived its supervisor" in line for line in again.lines)
        assert again.pid(0) != orphan
        assert not alive(orphan)


def test_manifests_are_followed(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    orders = manifests / "orders.yaml"
    orders.write_text(TOPIC % ("orders", 3) + "---\n" + TOPIC % ("clicks", 1))
    (manifests / "bad.yaml").write_text(TOPIC % ("Bad_Name", 1))
    data = tmp_path / "data"
    with running(data, "--brokers", "1", "--manifests", str(manifests)) as dev:
        assert any("bad.yaml: Topic Bad_Name: metadata.name:" in line for line in dev.lines)
        orders.write_text(TOPIC % ("orders", 2))
        dev.line("refused: orders.yaml: Topic orders: spec.partitions: partitions cannot be decreased")
        assert set(topics(data)) == {"orders", "clicks"}, (
            "nothing is pruned while a file cannot be understood"
        )
        (manifests / "bad.yaml").unlink()
        orders.write_text(TOPIC % ("orders", 5))
        dev.line("topic/orders configured")
        dev.line("topic/clicks deleted: its manifest is gone")
        dev.line("Retained: topic clicks stays")
        eventually(dev, lambda: set(topics(data)) == {"orders"})
        manifests.rename(tmp_path / "away")
        dev.line("is away; nothing is changed")


def test_a_broker_that_cannot_start_ends_it_with_its_last_words(tmp_path: Path) -> None:
    for code, attempts in (("2", 1), ("1", 3)):
        dev = Dev(tmp_path / code, "--brokers", "1", fail=("--fail", code))
        dev.line("broker 0 does not start")
        dev.line("port 99999 does not exist")
        assert dev.ended() == 1
        log = (tmp_path / code / "broker-0" / "broker.log").read_text()
        assert len(log.splitlines()) == attempts


def test_leaderships_move_when_brokers_die_and_when_they_are_held_up(tmp_path: Path) -> None:
    data = tmp_path / "data"
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    spec = "spec: {clusterRef: {name: somewhere}, partitions: 3, replicas: 3}"
    (manifests / "t.yaml").write_text((TOPIC % ("orders", 3)).rpartition("spec:")[0] + spec)

    def partitions() -> list[dict[str, Any]]:
        code, out, _ = strandline("describe", "orders", "-o", "json", "--data-dir", str(data))
        assert code == 0
        found: list[dict[str, Any]] = json.loads(out)["partitions"]
        return found

    def leaders() -> set[int]:
        return {partition["leader"] for partition in partitions()}

    def brokers() -> dict[str, str]:
        _, out, _ = strandline("status", "-o", "json", "--data-dir", str(data))
        return {broker["broker"]: broker["state"] for broker in json.loads(out)["brokers"]}

    options = ("--brokers", "3", "--config", "lease_duration_ms=3000", "--config", "lease_renew_ms=500")
    with running(data, *options, "--manifests", str(manifests)) as dev:
        assert leaders() == {0, 1, 2}
        # The end of a process is seen at once.
        pid = dev.pid(0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(dev, lambda: leaders() == {1, 2})
        eventually(dev, lambda: all(p["isr"][0]["broker"] != 0 for p in partitions()))
        assert all(p["state"] == ["under-replicated"] for p in partitions())
        eventually(dev, lambda: brokers() == {"0": "running", "1": "running", "2": "running"})
        # One that is held up is found out by its Lease. Only it was in sync, together with broker 2.
        pid = dev.pid(1)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        eventually(dev, lambda: leaders() == {2})
        os.kill(pid, signal.SIGCONT)
        # kill -9 of all at once: whoever was in sync last leads again, in a new epoch.
        before = {p["partition"]: p["leaderEpoch"] for p in partitions()}
        for broker_id in range(3):
            pid = dev.pid(broker_id)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        eventually(dev, lambda: all(p["leaderEpoch"] > before[p["partition"]] for p in partitions()))
        eventually(dev, lambda: leaders() == {2})


def test_apply_describe_and_status(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    file = tmp_path / "t.yaml"
    file.write_text(TOPIC % ("orders", 2))
    code, _, err = strandline("status", "--data-dir", data)
    assert (code, "start one with: strandline dev" in err) == (1, True)
    with running(Path(data), "--brokers", "1", "--config", "retention.ms=1234") as dev:
        assert strandline("apply", "-f", str(file), "--data-dir", data)[:2] == (0, "topic/orders created\n")
        assert strandline("apply", "-f", str(file), "--data-dir", data)[:2] == (0, "topic/orders unchanged\n")
        eventually(dev, lambda: topics(Path(data))["orders"].get("status", {}).get("partitions") == 2)
        code, out, _ = strandline("describe", "orders", "--data-dir", data)
        assert code == 0
        assert "Ready=True" in out
        assert "retention.ms=1234" in out
        assert re.search(r"^1 +0 +0 +0 +0$", out, re.MULTILINE), out
        code, out, _ = strandline("describe", "topic", "orders", "-o", "json", "--data-dir", data)
        (first, _) = json.loads(out)["partitions"]
        assert (first["leader"], first["replicas"], first["state"]) == (0, [0], [])
        code, out, _ = strandline("status", "-o", "json", "--data-dir", data)
        found = json.loads(out)
        assert (found["reassignments"], found["withoutTopicObject"]) == ([], [])
        assert (found["running"], found["topics"], found["brokers"][0]["state"]) == (True, 1, "running")
        code, out, _ = strandline("topics", "--data-dir", data)
        assert out.splitlines()[0].split() == [
            "NAME", "READY", "PARTITIONS", "UNDER-REPLICATED", "OFFLINE", "UNPROTECTED", "STORED", "AGE",
        ]  # fmt: skip
        file.write_text(TOPIC % ("orders", 1))
        code, _, err = strandline("apply", "-f", str(file), "--data-dir", data)
        assert (code, "partitions cannot be decreased" in err) == (1, True)
        code, _, err = strandline("describe", "order", "--data-dir", data)
        assert (code, 'did you mean "orders"?' in err) == (1, True)
    code, out, _ = strandline("status", "--data-dir", data)
    assert code == 0
    assert "the cluster is not running" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("dev", "--brokers", "0"), 2, "--brokers"),
        (("dev", "--config", "nonsense"), 2, "is not KEY=VALUE"),
        (("dev", "--config", "listeners=X://:1"), 2, "decided here by --host, --port and --listener"),
        (("dev", "--listener", "SSL://9093"), 2, "is not NAME://HOST:PORT"),
        (("dev", "--listener", "SSL://localhost:99999"), 2, "is no port"),
        (("dev", "--listener", "PLAINTEXT://localhost:9093"), 2, "is the listener of --host and --port"),
        (("dev", "--listener", "internal://localhost:9093"), 2, "is the listener between brokers"),
        (("dev", "--config", "inter.broker.listener.name=X"), 2, "it is always INTERNAL"),
        (("dev", "--config", "inter_broker_token_file=/t"), 2, "decided here by --data-dir"),
        (("dev", "--config", "broker.rack=a"), 2, "decided here by --racks"),
        (("dev", "--racks", "a,,b"), 2, "a rack without a name"),
        (("dev", "--manifests", "/nowhere/at/all"), 2, "does not exist"),
        (("dev", "--bucket", "s3:///"), 2, "names no bucket"),
        (("dev", "--config", "tiering.bucket=dir:/x"), 2, "decided here by --bucket"),
        (("dev", "--endpoint-url", "http://x"), 2, "needs --bucket s3://"),
        (("tier", "ls", "--bucket", "/nowhere/at/all"), 1, "there is no bucket in /nowhere/at/all"),
        (("tier", "frobnicate"), 2, "frobnicate"),
        (("topcis",), 2, 'did you mean "topics"?'),
        (("apply", "-f", "/nowhere/at/all"), 1, "no such file or folder"),
        (("describe", "topik", "x"), 2, "use topic, cluster or broker"),
        (("broker", "--set", "nonsense"), 2, "key=value"),
        (("broker", "--config", "/nowhere"), 1, "/nowhere"),
    ],
)
def test_wrong_usage_and_refusals(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    if arguments[0] == "dev":
        arguments += ("--data-dir", str(tmp_path))
    found, _, err = strandline(*arguments)
    assert (found, message in err) == (code, True), err


def test_a_port_in_use_is_named_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if port + 1000 > 65535:
            pytest.skip("no HTTP port above this one")
        with pytest.raises(LayoutError, match=f"port {port} of 127.0.0.1 cannot be used"):
            choose_ports("127.0.0.1", port, 1)


def test_free_ports_are_all_different() -> None:
    ports = [port for pair in choose_ports("127.0.0.1", 0, 20) for port in pair]
    assert len(set(ports)) == 40


def test_every_broker_gets_each_further_listener_on_a_port_of_its_own() -> None:
    more = ("SASL_SSL://broker.example:9193", "CONTROL://[::1]:9293")
    assert [listener_of(listener, 0) for listener in more] == list(more)
    assert [listener_of(listener, 2) for listener in more] == [
        "SASL_SSL://broker.example:9195",
        "CONTROL://[::1]:9295",
    ]


def test_the_token_between_brokers_is_made_once_and_for_this_user_only(tmp_path: Path) -> None:
    layout = DataDir(tmp_path)
    layout.ensure_token()
    token = layout.token_file.read_bytes()
    assert re.fullmatch(rb"[0-9a-f]{64}\n", token), "256 random bits"
    assert layout.token_file.stat().st_mode & 0o777 == 0o600
    layout.ensure_token()
    assert layout.token_file.read_bytes() == token
    layout.token_file.write_bytes(b"")
    layout.ensure_token()
    assert len(layout.token_file.read_bytes()) == 65
    other = DataDir(tmp_path / "other")
    with pytest.raises(LayoutError, match=r"inter-broker\.token cannot be made"):
        other.ensure_token()


def test_every_broker_gets_a_listener_for_the_others(tmp_path: Path) -> None:
    layout = DataDir(tmp_path)
    options = DevOptions(
        brokers=2,
        host="::1",
        advertise="::1",
        data_dir=layout,
        manifests=None,
        flush="Fsync",
        listeners=("SSL://h:9300",),
        assignments=(
            "listener_security_protocol_map=OTHER:PLAINTEXT",
            "ssl_certificate_file=/c",
            "ssl_key_file=/k",
        ),
        plain=True,
        ports=[(9092, 10092), (9093, 10093)],
        resumed=False,
    )
    for number, process in enumerate(make_processes(options)):
        command = process.command
        settings = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
        config = load(None, settings, {})
        client, further, internal = config.resolve_listeners()
        assert (client.host, client.port, further.port) == ("::1", 9092 + number, 9300 + number)
        assert (internal.name, internal.host, internal.port) == ("INTERNAL", "127.0.0.1", 0)
        assert [each.internal for each in (client, further, internal)] == [False, False, True]
        assert config.inter_broker_token_file == str(layout.token_file)


def test_brokers_are_put_into_racks_in_turn(tmp_path: Path) -> None:
    def racks(text: str) -> list[str | None]:
        options = DevOptions(
            brokers=3,
            host="127.0.0.1",
            advertise="127.0.0.1",
            data_dir=DataDir(tmp_path),
            manifests=None,
            flush="Fsync",
            listeners=(),
            assignments=(),
            plain=True,
            ports=[(9092 + number, 10092 + number) for number in range(3)],
            resumed=False,
            racks=racks_of(text),
        )
        commands = [process.command for process in make_processes(options)]
        settings = [[c[i + 1] for i, word in enumerate(c) if word == "--set"] for c in commands]
        return [load(None, assignments, {}).rack for assignments in settings]

    assert racks("") == [None, None, None]
    assert racks("west, east") == ["west", "east", "west"]


def test_restarts_back_off_and_start_anew_after_a_stable_run() -> None:
    restarts = Restarts()
    assert [restarts.delay_s(0.1) for _ in range(8)] == [0, 0.5, 1, 2, 4, 8, 10, 10]
    assert restarts.delay_s(60) == 0
    assert restarts.delay_s(0.1) == 0.5


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strandline_operator.cli.layout._MAX_LOG_BYTES", 10)
    layout = DataDir(tmp_path)
    layout.broker_dir(0).mkdir()
    layout.log_file(0).write_text("more than ten bytes\n")
    os.close(layout.open_log(0))
    assert layout.log_file(0).read_text() == ""
    assert layout.log_file(0).with_suffix(".log.1").exists()
