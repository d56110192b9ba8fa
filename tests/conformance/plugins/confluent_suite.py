"""A `trivup` module that runs Strandline, for confluent-kafka's tests, which start Kafka through trivup.

Waiting for a transaction coordinator has an end here: librdkafka waits for ever by default, inside C where no timeout of
pytest reaches.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any

import confluent_kafka.admin
from strandline_dev import FACTOR, Broker, free_port

_COORDINATOR_WAIT_S = 10.0


class KafkaCluster:
    """trivup's cluster as far as the suite uses it. What has no meaning here (versions, KRaft) is accepted."""

    def __init__(self, **conf: Any) -> None:
        # Kafka 4.1 and newer set this for the whole cluster at its first start; the suite counts on it.
        self._settings = {"min.insync.replicas": "1"}
        self._mechanism = conf.get("sasl_mechanism", "")
        self._users = dict(pair.split("=", 1) for pair in conf.get("sasl_users", "").split(",") if pair)
        self._port = 0
        if self._mechanism:
            self._port = free_port()
            self._settings["sasl_enabled_mechanisms"] = self._mechanism
        listeners = {"SASL_PLAINTEXT": self._port} if self._mechanism else {}
        self._broker = Broker(
            listeners=listeners, settings=self._settings, users=self._users if self._mechanism else None
        )

    def wait_operational(self) -> None:
        """It is, since it was made."""

    def client_conf(self) -> Mapping[str, str]:
        """Settings of a client of this cluster."""
        if not self._mechanism:
            return {"bootstrap.servers": self._broker.bootstrap}
        ((user, password),) = self._users.items()
        return {
            "bootstrap.servers": f"127.0.0.1:{self._port}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": self._mechanism,
            "sasl.username": user,
            "sasl.password": password,
        }

    def stop(self, *, cleanup: bool = True) -> None:
        """Stop it; its files go with the run's folder."""
        del cleanup
        self._broker.stop()


_NewTopic = confluent_kafka.admin.NewTopic


def _new_topic(*args: Any, **fields: Any) -> Any:
    """Return a topic with as many replicas as there are brokers where the suite, made for one broker, asks for one."""
    if fields.get("replication_factor") == 1:
        fields["replication_factor"] = FACTOR
    return _NewTopic(*args, **fields)


def _init_transactions(self: Any, timeout: float = _COORDINATOR_WAIT_S) -> None:
    confluent_kafka.Producer.init_transactions(self, timeout)


confluent_kafka.SerializingProducer.init_transactions = _init_transactions  # type: ignore[method-assign]
confluent_kafka.admin.NewTopic = _new_topic
for _name in ("trivup", "trivup.clusters", "trivup.clusters.KafkaCluster"):
    sys.modules[_name] = types.ModuleType(_name)
sys.modules["trivup.clusters.KafkaCluster"].KafkaCluster = KafkaCluster  # type: ignore[attr-defined]
