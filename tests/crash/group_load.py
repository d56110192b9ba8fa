"""Two consumer groups beside a nemesis, on librdkafka and on aiokafka, with commits that are read back all the time.

Members, journals and rules are those of `rebalance_storm`; only nobody is killed here but brokers.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from confluent_kafka import KafkaException
from tests.crash.storm_check import Place, Register, StormHistory, StormVerdict, check
from tests.crash.storm_cluster import StormProducer, committed_offsets, create_topics, log_ends
from tests.crash.storm_journal import JournalReader, StormCounts
from tests.crash.storm_worker import AIOKAFKA, LIBRDKAFKA, Slot, WorkerSpec

TOPIC = "nemesis-groups"
PARTITIONS = 4
LONGEST_WAIT_S = 180.0
"""Until a record reaches a group: the longest faults, a rebalance, and the clients' own patience."""
_PROBE_EVERY_S = 3.0
_READ_UP_S = 120.0
_END_S = 60.0


class GroupLoad:
    """A producer, one process of members for each client, and a probe in a thread."""

    def __init__(self, bootstrap: str, folder: Path, seed: int, records_per_s: float, replicas: int) -> None:
        self.findings: list[str] = []
        self.counts = StormCounts()
        self.verdict = StormVerdict()
        self._bootstrap = bootstrap
        self._folder = folder
        self._seed = seed
        self._replicas = replicas
        self._places = [Place(TOPIC, partition) for partition in range(PARTITIONS)]
        self._history = StormHistory(groups=[f"{client}s" for client in (LIBRDKAFKA, AIOKAFKA)])
        self._producer = StormProducer(bootstrap, self._places, records_per_s, f"{seed}/groups")
        self._workers: list[tuple[subprocess.Popen[str], Path]] = []
        self._stop = threading.Event()
        self._probe_thread = threading.Thread(target=self._probe_all, name="group-probe")

    def start(self) -> None:
        """Create the topic, and begin."""
        create_topics(self._bootstrap, [TOPIC], PARTITIONS, self._replicas)
        self._folder.mkdir(parents=True, exist_ok=True)
        for client in (LIBRDKAFKA, AIOKAFKA):
            journal = self._folder / f"{client}.jsonl"
            slots = [Slot(f"{client}s/{n}", f"{client}s", "range", None) for n in range(2)]
            spec = WorkerSpec(
                self._bootstrap, client, str(self._seed), str(journal), [TOPIC], slots, 40.0, 3.0, 1.0
            )
            with (self._folder / f"{client}.log").open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "tests.crash.storm_worker", spec.to_json()],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            self._workers.append((process, journal))
        self._producer.start()
        self._probe_thread.start()

    def finish(self) -> None:
        """Let everything be delivered and read, and everybody leave; then judge. Nothing may be broken any more."""
        self._producer.stop()
        self._history.ends = log_ends(self._bootstrap, self._places)
        for process, _ in self._workers:
            self._tell(process, "calm")
        self._wait_until_read()
        self._stop.set()
        self._probe_thread.join()
        self.close()
        self._history.acks = self._producer.acks
        self.findings += self._producer.findings
        reader = JournalReader(self._history, self.counts)
        for _, journal in self._workers:
            reader.read(journal, ended_at=time.monotonic())
        for text, count in self.counts.errors.items():
            if "member ended" in text:
                self.findings.append(f"{text} x{count}")
        self.findings += [f"{consumer}: {text}" for _, consumer, text in self.counts.fatal]
        self.verdict = check(self._history, longest_wait_s=LONGEST_WAIT_S)

    def close(self) -> None:
        """End the members: by asking, then by force."""
        for process, _ in self._workers:
            if process.poll() is None:
                self._tell(process, "finish")
        for process, _ in self._workers:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.findings.append(f"a process of group members does not end: {process.args!r}")
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()

    def abandon(self) -> None:
        """End everything at once, without a judgement."""
        self._stop.set()
        self._producer.abandon()
        for process, _ in self._workers:
            process.kill()
            process.wait()
            if process.stdin is not None and not process.stdin.closed:
                process.stdin.close()

    def _tell(self, process: subprocess.Popen[str], word: str) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(word + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            self.findings.append(f"a process of group members ended with {process.poll()}")

    def _wait_until_read(self) -> None:
        """Wait until both groups have committed the log ends."""
        deadline = time.monotonic() + _READ_UP_S
        for group in self._history.groups:
            while True:
                found = committed_offsets(self._bootstrap, group, self._places, "end")
                behind = {
                    p: (read.offset, end)
                    for p, end in self._history.ends.items()
                    if (read := found[p]).offset < end
                }
                if not behind:
                    break
                if time.monotonic() > deadline:
                    self.findings.append(f"{group} is stuck: committed and end {behind}")
                    break
                time.sleep(0.5)

    def _probe_all(self) -> None:
        while not self._stop.wait(_PROBE_EVERY_S):
            for group in self._history.groups:
                try:
                    found = committed_offsets(self._bootstrap, group, self._places, "probe")
                except KafkaException:
                    continue  # a minute without an answer: the faults may last for longer
                except Exception as error:  # noqa: BLE001 - a thread's end must not go unnoticed
                    self.findings.append(f"the probe died: {error!r}")
                    return
                for place, read in found.items():
                    self._history.probes[Register(group, place)].append(read)
