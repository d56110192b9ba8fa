"""What tools that follow Git say about Clusters and Topics: Argo CD by a script of ours, Flux by expressions.

The script runs in the interpreter that Argo CD's is like (Lua 5.1), the statuses are those that the operator writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cel
import pytest
import yaml
from lupa import lua51

from strandline_operator.controller.conditions import Reason, Trouble, conditions

GITOPS = Path(__file__).resolve().parents[3] / "manifests" / "gitops"
SCRIPT = (GITOPS / "health.lua").read_text(encoding="utf-8")
STARTING = Trouble(Reason.WAITING_FOR_BROKERS, "1 of 3 brokers run", own_condition=False)
ROLLING = Trouble(Reason.ROLLING_UPDATE, "restarting broker 1", ready=True)
OFFLINE = Trouble(Reason.PARTITIONS_OFFLINE, "orders-0 has no leader")
BEHIND = Trouble(Reason.PARTITIONS_UNDER_REPLICATED, "orders-0 has replicas that are not in sync", note=True)
REFUSED = Trouble(Reason.SCALE_DOWN_REFUSED, "three brokers run", stalled=True)


def resource(*troubles: Trouble, observed: int = 2, **metadata: Any) -> dict[str, Any]:
    found = conditions(
        troubles, ready_message="all is well", generation=observed, previous=(), now_ms=1_700_000_000_000
    )
    return {
        "metadata": {"name": "demo", "generation": 2, **metadata},
        "status": {"observedGeneration": observed, "conditions": found},
    }


NEW: dict[str, Any] = {"metadata": {"name": "demo", "generation": 1}}
CASES = [
    (resource(), "Healthy", "all is well"),
    (resource(STARTING), "Progressing", "1 of 3 brokers run"),
    (resource(ROLLING), "Healthy", "all is well"),
    (resource(BEHIND), "Healthy", "all is well"),
    (resource(OFFLINE), "Progressing", "orders-0 has no leader"),
    (resource(REFUSED), "Degraded", "three brokers run"),
    (resource(STARTING, REFUSED), "Degraded", "three brokers run"),
    (resource(observed=1), "Progressing", "waiting for the operator"),
    (resource(deletionTimestamp="2026-01-01T00:00:00Z"), "Progressing", "is being deleted"),
    (NEW, "Progressing", "waiting for the operator"),
    ({**NEW, "status": {}}, "Progressing", "waiting for the operator"),
]


def health(script: str, obj: dict[str, Any]) -> tuple[str, str]:
    lua: Any = lua51.LuaRuntime(unpack_returned_tuples=True)
    # As Argo CD does: no way to files, processes or other modules.
    for name in ("os", "io", "require", "package", "debug", "python", "dofile", "loadfile"):
        lua.globals()[name] = None
    lua.globals().obj = lua.table_from(obj, recursive=True)
    found = lua.execute(script)
    return found.status, found.message


@pytest.mark.parametrize(("obj", "status", "message"), CASES)
def test_argo_cd_sees_what_the_conditions_say(obj: dict[str, Any], status: str, message: str) -> None:
    assert health(SCRIPT, obj) == (status, message)


def test_a_failure_that_nobody_works_on_is_degraded() -> None:
    obj = resource(OFFLINE)
    for condition in obj["status"]["conditions"]:
        if condition["type"] == "Reconciling":
            condition["status"] = "False"
    assert health(SCRIPT, obj) == ("Degraded", "orders-0 has no leader")


def test_argo_cds_configuration_holds_that_script_for_both_kinds() -> None:
    patch = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text(encoding="utf-8"))
    assert patch == {
        "data": {
            f"resource.customizations.health.strandline.io_{kind}": SCRIPT for kind in ("Cluster", "Topic")
        }
    }


@pytest.mark.parametrize(("obj", "status", "_message"), CASES)
def test_flux_calls_the_same_clusters_healthy(obj: dict[str, Any], status: str, _message: str) -> None:
    flux = yaml.safe_load((GITOPS / "flux-kustomization.yaml").read_text(encoding="utf-8"))
    (expressions,) = flux["spec"]["healthCheckExprs"]
    context = {"metadata": obj["metadata"], "status": obj.get("status", {})}

    def holds(name: str) -> bool:
        return bool(cel.evaluate(expressions[name], context))

    # Flux asks in this order; what is being deleted it does not ask about.
    answer = next((name for name in ("inProgress", "failed", "current") if holds(name)), "unknown")
    if "deletionTimestamp" not in obj["metadata"]:
        expected = {"Healthy": "current", "Progressing": "inProgress", "Degraded": "failed"}
        assert answer == expected[status]
