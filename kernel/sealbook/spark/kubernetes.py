"""The same standalone cluster of attested nodes on Kubernetes, as manifests.

A master (one pod behind a headless Service) and workers, each `sealbook cluster node` in the foreground.
Spark's own scheduler for Kubernetes is not used: it starts executors with command lines of its own, which
no agent checked.

The broker is in no manifest. Who runs the machines of a Kubernetes cluster reads what is in the pods there,
and the broker's keyring opens everything; so it runs on the data owner's own machine, which the nodes reach
over TLS pinned to its authority. No secret is in any manifest: a ConfigMap holds the authority's certificate.

The container image has sealbook with the extra ``spark`` on its PATH, Java, and a user 10001 in its
``/etc/passwd`` (Hadoop's classes look their user up by number). With SGX it has Gramine too, and an image of
``sealbook image build --role spark-worker``.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealbook import files
from sealbook.broker.names import check_name
from sealbook.errors import InputError
from sealbook.image.mounts import overlap
from sealbook.spark.jvm import check_heap, megabytes
from sealbook.spark.profiles import Profile

#: Where the master listens in its pod, and is reached.
MASTER_PORT = 7077
#: Where nodes see the ConfigMap, keep what belongs to their user, and, in the start, see the platform.
CONFIGURATION, STATE, PLATFORM = "/etc/sealbook", "/state", "/platform"
#: Where nodes in Gramine have their tables where there is no volume with some.
NO_TABLES = "/tables"
#: The user of every container; not root.
USER = 10001
MAX_WORKERS = 1000
#: What Intel's device plugin calls the memory of enclaves and the access to them; and what tells its webhook
#: to show the pod the machine's quoting service.
_EPC, _ENCLAVE, _PROVISION = "sgx.intel.com/epc", "sgx.intel.com/enclave", "sgx.intel.com/provision"
_QUOTES = {"sgx.intel.com/quote-provider": "aesmd"}
#: Of a node's agent and the JVM of a master or worker: 512 MiB of heap and what a JVM has beside it.
_DAEMON_MEBIBYTES = 1024
#: Beside an executor's heap, as a part of it: its Python workers and what a JVM has beside its heap.
_BESIDE_HEAP, _LEAST_BESIDE_HEAP = 0.5, 512

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,200}@sha256:[0-9a-f]{64}")
_QUANTITY = re.compile(r"[1-9][0-9]{0,5}[MG]i")
_PATH = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}){1,10}")
_CLAIM = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """What is to be rendered.

    Attributes
    ----------
    image
        By digest: a tag can be moved to another image by whoever has the registry.
    broker, ca
        Its address, and its authority in PEM.
    epc
        Enclave memory of a node, or None where there is no SGX: the nodes' enclaves are simulated then.
    gramine_image
        Where in the container image of nodes with SGX the image is that Gramine runs.
    tables
        ``CLAIM:/path``: a persistent volume claim with sealed tables, seen at the path that drivers name.
    drivers
        A network outside Kubernetes, in CIDR notation, whose drivers may connect.
    master
        ``spark://host:port`` at which drivers reach the master; None for the Service's name.
    """

    name: str
    image: str
    broker: str
    ca: str
    namespace: str = "sealbook"
    workers: int = 2
    cores: int = 1
    memory: str = "1g"
    epc: str | None = None
    gramine_image: str = "/opt/sealbook/node"
    tables: str | None = None
    drivers: str | None = None
    master: str | None = None

    def __post_init__(self) -> None:
        check_name(self.namespace, "a namespace")
        _ = self.profile  # checks all that is in it
        if not _IMAGE.fullmatch(self.image):
            raise InputError(
                f"'{self.image}' does not name an image by its digest: write --image "
                "REGISTRY/NAME@sha256:... with all 64 digits."
            )
        if not 1 <= self.workers <= MAX_WORKERS:
            raise InputError(f"A cluster has 1 to {MAX_WORKERS} workers, not {self.workers}.")
        if self.epc is not None and not _QUANTITY.fullmatch(self.epc):
            raise InputError(f"'{self.epc}' is not an amount of enclave memory: write it like 512Mi or 8Gi.")
        if not _PATH.fullmatch(self.gramine_image):
            raise InputError(f"'{self.gramine_image}' is not an absolute path: see --gramine-image.")
        claim, _, path = (self.tables or "claim:/path").partition(":")
        if not _CLAIM.fullmatch(claim) or not _PATH.fullmatch(path):
            raise InputError(f"'{self.tables}' is no volume of tables: write --tables CLAIM:/path.")
        taken = (CONFIGURATION, STATE, PLATFORM, "/tmp", self.gramine_image)  # noqa: S108 - in the container
        if any(overlap(path, other) for other in taken):
            raise InputError(f"Something else is at {path} in the nodes: choose another path for --tables.")
        if self.drivers is not None:
            try:
                ipaddress.ip_network(self.drivers)
            except ValueError:
                raise InputError(
                    f"'{self.drivers}' is not a network: write --drivers like 10.1.0.0/16."
                ) from None

    @property
    def prefix(self) -> str:
        """What names of objects begin with."""
        return f"sealbook-{self.name}"

    @property
    def host(self) -> str:
        """The master's name for its workers: of its Service, and in its own pod that of the pod."""
        return f"{self.prefix}-master"

    @property
    def profile(self) -> Profile:
        """What a notebook's kernel uses the cluster by."""
        return Profile(
            name=self.name,
            master=self.master or f"spark://{self.host}.{self.namespace}.svc:{MASTER_PORT}",
            broker=self.broker,
            ca=self.ca,
            cores=self.cores,
            memory=check_heap(self.memory),
        )


def render(wishes: Wishes) -> dict[str, str]:
    """Return file names and manifests, each a YAML document (in the form of JSON, which YAML includes)."""
    documents: Mapping[str, Manifest] = {
        "configmap.yaml": _object(wishes, "v1", "ConfigMap", "authority", {"data": {"ca.pem": wishes.ca}}),
        "master-service.yaml": _service(wishes),
        "master.yaml": _deployment(wishes, "master", 1, _master(wishes)),
        "workers.yaml": _deployment(wishes, "worker", wishes.workers, _worker(wishes)),
        "network-policy.yaml": _network_policy(wishes),
    }
    return {name: json.dumps(document, indent=2) + "\n" for name, document in documents.items()}


def notes(wishes: Wishes) -> list[str]:
    """Return what is to be known of what was rendered, as sentences."""
    said = [
        f"The broker {wishes.broker} is in no manifest: it runs on the data owner's machine, because who "
        "runs the Kubernetes machines could read its keys there."
    ]
    if wishes.epc is None:
        said.append(
            "Without --epc the nodes' enclaves are simulated and protect nothing; they attest with the "
            "broker's simulated platform: `kubectl create secret generic "
            f"{wishes.prefix}-platform --namespace {wishes.namespace} --from-file=DIRECTORY`, with "
            "simulated-platform in the broker's sealbook directory."
        )
    else:
        said.append(
            "The nodes need Intel's SGX device plugin with its webhook, and the policy of the cluster must "
            "admit the image that Gramine runs; this form was never tried on SGX machines."
        )
    said.append(
        f"Drivers find the master at {wishes.profile.master} (--profile saves that for `%scale cluster "
        f"{wishes.name}`); in Kubernetes, a pod of theirs has the labels "
        + " and ".join(f"{key}={value}" for key, value in _labels(wishes).items())
        + f" in the namespace {wishes.namespace}."
    )
    return said


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


def _service(wishes: Wishes) -> Manifest:
    spec = {
        # Its name is the address of the pod itself, which is what the master listens at.
        "clusterIP": "None",
        "selector": _labels(wishes, "master"),
        "ports": [{"name": "rpc", "port": MASTER_PORT, "targetPort": "rpc"}],
    }
    return _object(wishes, "v1", "Service", "master", {"spec": spec})


def _master(wishes: Wishes) -> Manifest:
    container = _node(wishes, "master", ["--host", wishes.host, "--port", str(MASTER_PORT)])
    container |= {
        "ports": [{"name": "rpc", "containerPort": MASTER_PORT}],
        "readinessProbe": {"tcpSocket": {"port": "rpc"}, "periodSeconds": 5},
        "resources": _resources(wishes, "250m", _DAEMON_MEBIBYTES),
    }
    # So that the master's name means its pod in the pod itself, before any name server knows.
    return _pod(wishes, container) | {"hostname": wishes.host}


def _worker(wishes: Wishes) -> Manifest:
    arguments = [
        *("--host", "$(POD_IP)", "--master", f"spark://{wishes.host}:{MASTER_PORT}"),
        *("--cores", str(wishes.cores), "--memory", wishes.profile.memory),
    ]
    heap = megabytes(wishes.profile.memory)
    beside = max(_LEAST_BESIDE_HEAP, int(heap * _BESIDE_HEAP))
    container = _node(wishes, "worker", arguments)
    container["resources"] = _resources(wishes, str(wishes.cores), _DAEMON_MEBIBYTES + heap + beside)
    return _pod(wishes, container)


def _node(wishes: Wishes, role: str, arguments: list[str]) -> Manifest:
    """Return the container of a node, which runs sealbook's own command."""
    return {
        "name": "node",
        "image": wishes.image,
        "command": ["sealbook"],
        "args": [
            *("cluster", "node", role, "--name", wishes.name),
            *("--broker", wishes.broker, "--ca", f"{CONFIGURATION}/ca.pem"),
            *arguments,
            *_gramine(wishes),
        ],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "SEALBOOK_HOME", "value": STATE},
            {"name": "HOME", "value": STATE},
        ],
        "securityContext": _RIGHTS,
        "volumeMounts": [
            {"name": "authority", "mountPath": CONFIGURATION, "readOnly": True},
            {"name": "state", "mountPath": STATE},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            *_tables_mount(wishes),
        ],
    }


def _gramine(wishes: Wishes) -> list[str]:
    if wishes.epc is None:
        return []
    (mount,) = _tables_mount(wishes)
    return ["--image", wishes.gramine_image, "--tee", "gramine-sgx", "--tables", mount["mountPath"]]


def _tables_mount(wishes: Wishes) -> list[Manifest]:
    if wishes.tables is not None:
        return [{"name": "tables", "mountPath": wishes.tables.partition(":")[2]}]
    # An image shows some directory as its tables, be it empty.
    return [{"name": "tables", "mountPath": NO_TABLES}] if wishes.epc is not None else []


def _tables_volume(wishes: Wishes) -> list[Manifest]:
    if wishes.tables is not None:
        return [{"name": "tables", "persistentVolumeClaim": {"claimName": wishes.tables.partition(":")[0]}}]
    return [_empty("tables")] if wishes.epc is not None else []


def _platform(wishes: Wishes) -> Manifest:
    """Return the container that gives a node the simulated platform, as files that the node may change."""
    return {
        "name": "platform",
        "image": wishes.image,
        "command": ["sh", "-c"],
        "args": [f"install -D -m 600 -t {STATE}/simulated-platform {PLATFORM}/*"],
        "securityContext": _RIGHTS,
        "volumeMounts": [
            {"name": "platform", "mountPath": PLATFORM, "readOnly": True},
            {"name": "state", "mountPath": STATE},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
    }


def _resources(wishes: Wishes, processors: str, mebibytes: int) -> Manifest:
    # Enclave memory cannot be overcommitted: Kubernetes takes the limits as requests.
    sgx = {} if wishes.epc is None else {_EPC: wishes.epc, _ENCLAVE: "1", _PROVISION: "1"}
    memory = f"{mebibytes}Mi"
    return {"requests": {"cpu": processors, "memory": memory}, "limits": {"memory": memory, **sgx}}


def _pod(wishes: Wishes, container: Manifest) -> Manifest:
    simulated = wishes.epc is None
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"initContainers": [_platform(wishes)]} if simulated else {}),
        "containers": [container],
        "volumes": [
            {"name": "authority", "configMap": {"name": f"{wishes.prefix}-authority"}},
            # Shuffle files, encrypted, are in the latter.
            _empty("state"),
            _empty("tmp"),
            *_tables_volume(wishes),
            *(
                [{"name": "platform", "secret": {"secretName": f"{wishes.prefix}-platform"}}]
                if simulated
                else []
            ),
        ],
    }


def _deployment(wishes: Wishes, component: str, replicas: int, pod: Manifest) -> Manifest:
    labels = _labels(wishes, component)
    metadata: Manifest = {"labels": labels}
    if wishes.epc is not None:
        metadata["annotations"] = _QUOTES
    spec = {
        "replicas": replicas,
        # Never two masters under one name; and a new worker has no room beside the old one.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": metadata, "spec": pod},
    }
    return _object(wishes, "apps/v1", "Deployment", component, {"spec": spec})


def _network_policy(wishes: Wishes) -> Manifest:
    """Only members talk to members; at which ports is theirs, and all of them want a node's certificate."""
    sources: list[Manifest] = [{"podSelector": {"matchLabels": _labels(wishes)}}]
    if wishes.drivers is not None:
        sources.append({"ipBlock": {"cidr": wishes.drivers}})
    components = {
        "key": "app.kubernetes.io/component",
        "operator": "In",
        "values": ["master", "worker", "driver"],
    }
    spec = {
        "podSelector": {"matchLabels": _labels(wishes), "matchExpressions": [components]},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": sources, "ports": [{"protocol": "TCP", "port": 1024, "endPort": 65535}]}],
    }
    return _object(wishes, "networking.k8s.io/v1", "NetworkPolicy", "members", {"spec": spec})


#: Of every container.
_RIGHTS: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
}


def _empty(name: str) -> Manifest:
    return {"name": name, "emptyDir": {}}


def _labels(wishes: Wishes, component: str | None = None) -> dict[str, str]:
    labels = {"app.kubernetes.io/name": "sealbook", "app.kubernetes.io/instance": wishes.name}
    return labels | ({"app.kubernetes.io/component": component} if component else {})


def _object(wishes: Wishes, version: str, kind: str, name: str, rest: Manifest) -> Manifest:
    metadata = {
        "name": f"{wishes.prefix}-{name}",
        "namespace": wishes.namespace,
        "labels": _labels(wishes),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}
