"""The same cluster on Kubernetes, as manifests: what Spark's own Kubernetes scheduler takes.

Spark makes the executors' pods itself, from a template. There is no master and no worker: the driver's pod
asks the API server for executors. The entry point of a node's image must be the agent, which attests to the
broker and then becomes the JVM.

No secret is in any manifest, and none is mounted but the broker's own keyring, which whoever runs the
broker makes. A ConfigMap holds public settings only.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealbook import files
from sealbook.attestation.pem import read_chain
from sealbook.errors import InputError
from sealbook.spark import profiles, settings
from sealbook.spark.jvm import check_heap

#: Where the broker listens in its pod.
BROKER_PORT = 8440
#: Where a driver listens for executors, and all for blocks; fixed, so that a policy can name them.
DRIVER_PORT, BLOCK_PORT = 7078, 7079
#: Where nodes see the ConfigMap, and what the dummy TLS store is called there.
_MOUNTED, _STORE = "/etc/sealbook", settings.DUMMY_STORE.name
#: The user of every container; not root.
USER = 10001
#: What Intel's device plugin calls the memory of enclaves and the access to them.
_EPC, _ENCLAVE, _PROVISION = "sgx.intel.com/epc", "sgx.intel.com/enclave", "sgx.intel.com/provision"

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,200}@sha256:[0-9a-f]{64}")
_QUANTITY = re.compile(r"[1-9][0-9]{0,5}[MG]i")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """What is to be rendered.

    Attributes
    ----------
    image, broker_image
        By digest: a tag can be moved to another image by whoever has the registry.
    epc
        Enclave memory of a node, or None where there is no SGX.
    ca
        PEM of the broker's authority, or None where it is put in later.
    """

    name: str
    image: str
    broker_image: str
    namespace: str = "sealbook"
    cores: int = 1
    memory: str = "1g"
    epc: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        profiles.check_name(self.name)
        profiles.check_name(self.namespace)
        for image in (self.image, self.broker_image):
            if not _IMAGE.fullmatch(image):
                raise InputError(
                    f"'{image}' does not name an image by its digest: write --image "
                    "REGISTRY/NAME@sha256:... with all 64 digits."
                )
        if not 1 <= self.cores <= 1024:
            raise InputError(f"A node has 1 to 1024 cores, not {self.cores}.")
        check_heap(self.memory)
        if self.epc is not None and not _QUANTITY.fullmatch(self.epc):
            raise InputError(f"'{self.epc}' is not an amount of enclave memory: write it like 512Mi or 2Gi.")
        if self.ca is not None:
            try:
                read_chain(self.ca, 1)
            except ValueError:
                raise InputError(
                    "The authority of the broker is not one certificate in PEM: take the file "
                    "broker/ca.pem of the sealbook directory on the broker's machine."
                ) from None

    @property
    def prefix(self) -> str:
        """What names of objects begin with."""
        return f"sealbook-{self.name}"

    @property
    def broker_url(self) -> str:
        """Where nodes find the broker."""
        return f"https://{self.prefix}-broker.{self.namespace}.svc:{BROKER_PORT}"


def render(wishes: Wishes) -> dict[str, str]:
    """Return file names and manifests, each a YAML document (in the form of JSON, which YAML includes)."""
    documents: Mapping[str, Manifest] = {
        "configmap.yaml": _config_map(wishes),
        "broker-deployment.yaml": _broker_deployment(wishes),
        "broker-service.yaml": _broker_service(wishes),
        "network-policy.yaml": _network_policy(wishes),
        "broker-network-policy.yaml": _broker_network_policy(wishes),
        "driver-template.yaml": _pod(wishes, "driver"),
        "executor-template.yaml": _pod(wishes, "executor"),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


def write(manifests: Mapping[str, str], directory: Path, *, force: bool) -> list[Path]:
    """Write manifests into `directory`, made if missing.

    Raises
    ------
    InputError
        There are such files already and nobody asked to replace them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    paths = {directory / name: text for name, text in manifests.items()}
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        raise InputError(f"{existing[0]} exists: choose another --output, or say --force to replace it.")
    for path, text in paths.items():
        files.write_bytes(path, text.encode())
    return list(paths)


def spark_settings(wishes: Wishes) -> dict[str, str]:
    """Return the settings of a driver on Kubernetes: the protective ones, and where things are. Public."""
    values = {
        # The dummy store lies where the ConfigMap is mounted, not where it lies on this machine.
        setting.key: f"{_MOUNTED}/{_STORE}" if setting.value == str(settings.DUMMY_STORE) else setting.value
        for setting in settings.PROTECTIVE
    }
    prefix = "spark.kubernetes"
    return values | {
        "spark.sql.warehouse.dir": "sealed:///data/spark-warehouse",
        settings.CHECKPOINTS: "sealed:///data/spark-checkpoints",
        f"{prefix}.namespace": wishes.namespace,
        f"{prefix}.container.image": wishes.image,
        f"{prefix}.driver.podTemplateFile": "driver-template.yaml",
        f"{prefix}.executor.podTemplateFile": "executor-template.yaml",
        f"{prefix}.executor.podTemplateContainerName": "node",
        f"{prefix}.driver.podTemplateContainerName": "node",
        "spark.driver.port": str(DRIVER_PORT),
        "spark.blockManager.port": str(BLOCK_PORT),
        "spark.executor.cores": str(wishes.cores),
        "spark.executor.memory": wishes.memory,
    }


def _config_map(wishes: Wishes) -> Manifest:
    lines = "".join(f"{key} {value}\n" for key, value in sorted(spark_settings(wishes).items()))
    data = {
        "cluster": wishes.name,
        "broker": wishes.broker_url,
        "spark-defaults.conf": lines,
        **({"ca.pem": wishes.ca} if wishes.ca is not None else {}),
    }
    store = base64.b64encode(settings.DUMMY_STORE.read_bytes()).decode()
    return _object(wishes, "v1", "ConfigMap", "settings", {"data": data, "binaryData": {_STORE: store}})


def _broker_deployment(wishes: Wishes) -> Manifest:
    container = _container(
        wishes,
        "broker",
        wishes.broker_image,
        {
            "command": ["python", "-m", "sealbook", "broker", "serve"],
            "args": ["--host", "0.0.0.0", "--port", str(BROKER_PORT)],  # noqa: S104 - in its own pod
            "ports": [{"name": "https", "containerPort": BROKER_PORT}],
            "env": [{"name": "SEALBOOK_HOME", "value": "/state"}],
            "volumeMounts": [
                {"name": "state", "mountPath": "/state"},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            ],
            "readinessProbe": {"tcpSocket": {"port": "https"}, "periodSeconds": 5},
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        },
    )
    pod = _pod_spec([container], [_claim(wishes, "state"), _empty("tmp")])
    labels = _labels(wishes, "broker")
    spec = {
        # One: its challenges and its audit log are in one state.
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return _object(wishes, "apps/v1", "Deployment", "broker", {"spec": spec})


def _broker_service(wishes: Wishes) -> Manifest:
    spec = {
        "selector": _labels(wishes, "broker"),
        "ports": [{"name": "https", "port": BROKER_PORT, "targetPort": "https"}],
    }
    return _object(wishes, "v1", "Service", "broker", {"spec": spec})


def _network_policy(wishes: Wishes) -> Manifest:
    """Nodes talk to nodes and to the broker, and ask for names; the API server is the cluster's to add."""
    nodes = {"podSelector": {"matchLabels": _labels(wishes)}}
    ports = [{"protocol": "TCP", "port": port} for port in (DRIVER_PORT, BLOCK_PORT)]
    spec = {
        "podSelector": {
            "matchLabels": _labels(wishes),
            "matchExpressions": [
                {"key": "app.kubernetes.io/component", "operator": "In", "values": ["driver", "executor"]}
            ],
        },
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [nodes], "ports": ports}],
    }
    return _object(wishes, "networking.k8s.io/v1", "NetworkPolicy", "nodes", {"spec": spec})


def _broker_network_policy(wishes: Wishes) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": _labels(wishes, "broker")},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": _labels(wishes)}}],
                "ports": [{"protocol": "TCP", "port": BROKER_PORT}],
            }
        ],
    }
    return _object(wishes, "networking.k8s.io/v1", "NetworkPolicy", "broker", {"spec": spec})


def _pod(wishes: Wishes, component: str) -> Manifest:
    """Return a template that Spark completes: it sets the command's arguments, names and its own labels."""
    sgx = {} if wishes.epc is None else {_EPC: wishes.epc, _ENCLAVE: "1", _PROVISION: "1"}
    container = _container(
        wishes,
        "node",
        wishes.image,
        {
            "env": [
                {
                    "name": f"SEALBOOK_{name.upper()}",
                    "valueFrom": {"configMapKeyRef": {"name": f"{wishes.prefix}-settings", "key": name}},
                }
                for name in ("cluster", "broker")
            ],
            "volumeMounts": [
                {"name": "settings", "mountPath": _MOUNTED, "readOnly": True},
                {"name": "work", "mountPath": "/work"},
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            ],
            # Spark adds processors and memory; SGX memory cannot be overcommitted, so only limits count.
            "resources": {"limits": sgx} if sgx else {},
        },
    )
    volumes = [
        {"name": "settings", "configMap": {"name": f"{wishes.prefix}-settings"}},
        _empty("work"),
        _empty("tmp", medium="Memory"),
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{wishes.prefix}-{component}", "labels": _labels(wishes, component)},
        "spec": _pod_spec([container], volumes) | {"restartPolicy": "Never"},
    }


def _container(wishes: Wishes, name: str, image: str, rest: Manifest) -> Manifest:
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {"name": name, "image": image, "securityContext": security, **rest}


def _pod_spec(containers: list[Manifest], volumes: list[Manifest]) -> Manifest:
    return {
        # What needs the API server (a driver) is given an account by spark-submit's own setting.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": volumes,
    }


def _claim(wishes: Wishes, name: str) -> Manifest:
    return {"name": name, "persistentVolumeClaim": {"claimName": f"{wishes.prefix}-{name}"}}


def _empty(name: str, *, medium: str = "") -> Manifest:
    return {"name": name, "emptyDir": {"medium": medium} if medium else {}}


def _labels(wishes: Wishes, component: str | None = None) -> dict[str, str]:
    labels = {"app.kubernetes.io/name": "sealbook", "app.kubernetes.io/instance": wishes.name}
    return labels | ({"app.kubernetes.io/component": component} if component else {})


def _object(wishes: Wishes, version: str, kind: str, name: str, rest: Manifest) -> Manifest:
    metadata = {
        "name": f"{wishes.prefix}-{name}",
        "namespace": wishes.namespace,
        "labels": _labels(wishes, name if name == "broker" else None),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
