"""Changes dynamic configurations of brokers and groups in ClusterState, on behalf of a Kafka client."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from strandline_broker.api.context import BrokerApi
from strandline_broker.api.support.topic_change import unreachable
from strandline_broker.cluster.json_patch import pointer
from strandline_broker.cluster.model import CLUSTER_STATE, ClusterState, cluster_state_name
from strandline_broker.cluster.store import Conflict, Invalid, NotFound, Operation, Unavailable
from strandline_broker.errors import ErrorCode, KafkaError

_ATTEMPTS = 10

BROKER_CONFIGS, GROUP_CONFIGS = "brokerConfigs", "groupConfigs"

# From the stored configuration of one broker or group to the new one. Raises KafkaError.
Decide = Callable[[Mapping[str, str]], dict[str, str]]


def configs_in(state: ClusterState | None, section: str, key: str) -> Mapping[str, str]:
    """Return what is set for one broker id (or all brokers) or one group."""
    if state is None:
        return {}
    return (state.broker_configs if section == BROKER_CONFIGS else state.group_configs).get(key, {})


async def write_configs(broker: BrokerApi, section: str, key: str, decide: Decide) -> None:
    """Store what `decide` makes of the newest configuration, and return when this broker's view has it.

    `decide` may be called again after somebody else's change. Raises KafkaError: what `decide` raises,
    POLICY_VIOLATION where the schema's bounds refuse, REQUEST_TIMED_OUT when the store is away.
    """
    name = cluster_state_name(broker.view.cluster_name)
    for _ in range(_ATTEMPTS):
        try:
            state = ClusterState.from_object(await broker.store.get(CLUSTER_STATE, name))
            old = configs_in(state, section, key)
            new = decide(old)
            if new == old:
                return
            path = pointer("spec", section, key)
            operation: Operation = (
                {"op": "add", "path": path, "value": new} if new else {"op": "remove", "path": path}
            )
            tests = [(path, dict(old) or None)]
            await broker.store.patch_if(
                CLUSTER_STATE, name, uid=state.uid, tests=tests, operations=[operation]
            )
        except Conflict:
            continue  # somebody changed it: look again and decide again
        except NotFound as error:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT, "the cluster is still being set up; try again"
            ) from error
        except Invalid as error:
            raise KafkaError(ErrorCode.POLICY_VIOLATION, str(error)) from error
        except Unavailable as error:
            raise unreachable(error) from error
        await _wait_until_seen(broker, section, key, new)
        return
    raise KafkaError(ErrorCode.REQUEST_TIMED_OUT, f"the configuration of {key} is being changed by others")


async def _wait_until_seen(broker: BrokerApi, section: str, key: str, new: Mapping[str, str]) -> None:
    """Wait so that the client that asks this broker next sees its change; what is stored stays stored."""
    try:
        await broker.view.wait_until(lambda view: configs_in(view.state, section, key) == new, _SEEN_S)
    except TimeoutError:
        return


_SEEN_S = 2.0
