"""The StatefulSet of the brokers: one pod and one volume for each.

`podManagementPolicy: Parallel`, because brokers that wait for each other's readiness deadlock after a full stop;
`updateStrategy: OnDelete`, because only the operator knows whether a partition can spare a broker (`rolling`). The volume
claims outlive it, and nothing of a pod is needed to start a broker again but its volume.
"""

from __future__ import annotations

from typing import Any, Final

from strandline_broker.cluster.model import Object
from strandline_operator.kubernetes.blueprint import KEEP_ANNOTATIONS, Blueprint, checksum
from strandline_operator.kubernetes.config_map import (
    CONFIG_DIRECTORY,
    CONFIG_FILE,
    PLACEMENT_DIRECTORY,
    PLACEMENT_FILE,
    SHUTDOWN_TIMEOUT_MS,
    TERMINATION_MESSAGE_FILE,
    TLS_DIRECTORY,
    TOKEN_DIRECTORY,
    TOKEN_KEY,
    VOLUME_DIRECTORY,
    broker_settings,
)
from strandline_operator.kubernetes.listeners import INTERNAL_LISTENER
from strandline_operator.kubernetes.network import HTTP_PORT_NAME, service_account_name
from strandline_operator.kubernetes.placement import ANNOTATION_PLACEMENT

CONTAINER: Final = "broker"
VOLUME: Final = "data"
ANNOTATION_CONFIG: Final = "strandline.io/config-checksum"
USER_ID: Final = 10001
DEFAULT_SIZE: Final = "10Gi"
# Beyond the hand-over: answers in flight, the last fsync, a final word to the API server.
_CLOSING_S: Final = 30
# A broker that recovers its logs must never be restarted for being slow: a day, looked at every second.
_STARTUP_LOOKS: Final = 86_400


def stateful_set(blueprint: Blueprint) -> Object:
    """Return the StatefulSet."""
    spec = {
        "replicas": blueprint.replicas,
        "serviceName": blueprint.headless_service,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": blueprint.selector()},
        "template": pod_template(blueprint),
        "volumeClaimTemplates": [volume_claim_template(blueprint)],
    }
    return blueprint.object("apps/v1", "StatefulSet", blueprint.set_name, spec=spec)


def volume_claim_template(blueprint: Blueprint) -> Object:
    """Return the template of the brokers' volumes. They belong to nobody: only `deletionPolicy: Delete` removes them."""
    storage = blueprint.cluster.spec.get("storage") or {}
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": blueprint.template_size or storage.get("size", DEFAULT_SIZE)}},
    }
    if storage.get("className"):
        spec["storageClassName"] = storage["className"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": VOLUME, "labels": blueprint.labels(), "annotations": dict(KEEP_ANNOTATIONS)},
        "spec": spec,
    }


def pod_template(blueprint: Blueprint) -> dict[str, Any]:
    """Return what every broker's pod is made from."""
    settings = blueprint.settings
    spec: dict[str, Any] = {
        "serviceAccountName": service_account_name(blueprint),
        "automountServiceAccountToken": True,
        # Variables of Services would be as many as there are Services, and look like settings.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": SHUTDOWN_TIMEOUT_MS // 1000 + _CLOSING_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            # Going through all files of a large volume at every start would take minutes.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": _spread(blueprint),
        "containers": [_container(blueprint)],
        "volumes": _volumes(blueprint),
    }
    if settings.volume_permissions:
        spec["initContainers"] = [_volume_permissions(blueprint)]
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    metadata = {
        "labels": blueprint.labels(),
        "annotations": {
            ANNOTATION_CONFIG: checksum(broker_settings(blueprint)),
            "kubectl.kubernetes.io/default-container": CONTAINER,
        },
    }
    return {"metadata": metadata, "spec": spec}


def _spread(blueprint: Blueprint) -> list[dict[str, Any]]:
    """Apart by host, and by rack where there are racks, as far as there is room."""
    keys = ["kubernetes.io/hostname"]
    rack = blueprint.cluster.spec.get("rack")
    if rack:
        keys.insert(0, rack.get("topologyKey", "topology.kubernetes.io/zone"))
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": blueprint.selector()},
        }
        for key in keys
    ]


def _container(blueprint: Blueprint) -> dict[str, Any]:
    ports = [
        {"name": f"l-{index}", "containerPort": listener.port, "protocol": "TCP"}
        for index, listener in enumerate(blueprint.listeners)
    ]
    ports.append({"name": "inter-broker", "containerPort": blueprint.internal_port, "protocol": "TCP"})
    ports.append({"name": HTTP_PORT_NAME, "containerPort": blueprint.http_port, "protocol": "TCP"})
    return {
        "name": CONTAINER,
        "image": blueprint.settings.image,
        "imagePullPolicy": blueprint.settings.image_pull_policy,
        "command": ["strandline", "broker", "--config", f"{CONFIG_DIRECTORY}/{CONFIG_FILE}"],
        "env": _environment(blueprint),
        "ports": ports,
        "resources": blueprint.settings.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The broker writes which of its lives this is, so that the operator knows exactly whose end it sees.
        "terminationMessagePath": TERMINATION_MESSAGE_FILE,
        "terminationMessagePolicy": "File",
        "startupProbe": _probe("/healthz", period_s=1, failures=_STARTUP_LOOKS),
        "readinessProbe": _probe("/readyz", period_s=2, failures=2),
        # It says only that the process and its event loop live; nothing that a restart could not cure.
        "livenessProbe": _probe("/healthz", period_s=10, failures=6),
        "volumeMounts": _mounts(blueprint),
    }


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT_NAME, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _environment(blueprint: Blueprint) -> list[dict[str, Any]]:
    environment: list[dict[str, Any]] = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {
            "name": "STRANDLINE_BROKER_ID",
            "valueFrom": {
                "fieldRef": {
                    "apiVersion": "v1",
                    "fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']",
                }
            },
        },
        # Kubernetes puts the variables above into it.
        {"name": "STRANDLINE_ADVERTISED_LISTENERS", "value": _advertised(blueprint)},
    ]
    tiering = blueprint.cluster.spec.get("tiering") or {}
    secret = (tiering.get("credentialsSecret") or {}).get("name")
    if secret:
        environment += [
            {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
            for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        ]
    if tiering.get("region"):
        environment.append({"name": "AWS_REGION", "value": tiering["region"]})
    if tiering.get("endpointUrl"):
        environment.append({"name": "AWS_ENDPOINT_URL_S3", "value": tiering["endpointUrl"]})
    return environment


def _advertised(blueprint: Blueprint) -> str:
    """Return what brokers advertise until `placement` says otherwise: the pod's own name in the cluster's DNS."""
    own = f"$(POD_NAME).{blueprint.service_host(blueprint.headless_service)}"
    shown = [
        f"{listener.name}://{listener.advertised_host_of('$(STRANDLINE_BROKER_ID)') or own}:{listener.port}"
        for listener in blueprint.listeners
    ]
    shown.append(f"{INTERNAL_LISTENER}://{own}:{blueprint.internal_port}")
    return ",".join(shown)


def _mounts(blueprint: Blueprint) -> list[dict[str, Any]]:
    return [
        {"name": VOLUME, "mountPath": VOLUME_DIRECTORY},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of this pod
        {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
        {"name": "inter-broker", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
        {"name": "pod", "mountPath": PLACEMENT_DIRECTORY, "readOnly": True},
        *(
            {"name": f"tls-{index}", "mountPath": f"{TLS_DIRECTORY}/{listener.slug}", "readOnly": True}
            for index, listener in enumerate(blueprint.listeners)
            if listener.tls_secret
        ),
    ]


def _volumes(blueprint: Blueprint) -> list[dict[str, Any]]:
    # Readable by the group, which is the brokers' own.
    mode = 0o440
    annotation = f"metadata.annotations['{ANNOTATION_PLACEMENT}']"
    place = {"path": PLACEMENT_FILE, "fieldRef": {"apiVersion": "v1", "fieldPath": annotation}}
    return [
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        {"name": "config", "configMap": {"name": blueprint.config_map, "defaultMode": mode}},
        {
            "name": "inter-broker",
            "secret": {
                "secretName": blueprint.token_secret,
                "defaultMode": mode,
                "items": [{"key": TOKEN_KEY, "path": TOKEN_KEY}],
            },
        },
        {"name": "pod", "downwardAPI": {"defaultMode": mode, "items": [place]}},
        *(
            {"name": f"tls-{index}", "secret": {"secretName": listener.tls_secret, "defaultMode": mode}}
            for index, listener in enumerate(blueprint.listeners)
            if listener.tls_secret
        ),
    ]


def _volume_permissions(blueprint: Blueprint) -> dict[str, Any]:
    """Give the volume's root to the brokers' user, where the storage does not do it by fsGroup.

    The only container that runs as root, and only where the installation asks for it.
    """
    code = f"import os; os.chown({VOLUME_DIRECTORY!r}, {USER_ID}, {USER_ID})"
    return {
        "name": "volume-permissions",
        "image": blueprint.settings.image,
        "imagePullPolicy": blueprint.settings.image_pull_policy,
        "command": ["python3", "-c", code],
        "resources": blueprint.settings.resources,
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        "volumeMounts": [{"name": VOLUME, "mountPath": VOLUME_DIRECTORY}],
    }
