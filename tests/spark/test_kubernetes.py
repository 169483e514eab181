"""Manifests: valid for Kubernetes, for commands that there are, and with no secret in them."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from profile_of_a_test import authority

from sealbook.errors import InputError
from sealbook.spark import kubernetes, profiles
from sealbook.spark.kubernetes import Wishes

IMAGE = "registry.example/sealbook/node@sha256:" + "ab" * 32
WISHES = Wishes(
    name="lab",
    image=IMAGE,
    broker="https://broker.example.org:8440",
    ca=authority(),
    workers=3,
    cores=2,
    memory="2g",
    epc="8Gi",
    tables="tables:/data/sealed",
    drivers="10.1.0.0/16",
)
PLAIN = dataclasses.replace(WISHES, epc=None, tables=None, drivers=None)


def rendered(wishes: Wishes) -> dict:
    return {name: json.loads(text) for name, text in kubernetes.render(wishes).items()}


@pytest.fixture(
    params=[WISHES, PLAIN, dataclasses.replace(WISHES, tables=None)], ids=["sgx", "plain", "bare"]
)
def manifests(request):
    return rendered(request.param)


def pods(manifests: dict) -> dict:
    return {name: manifests[name]["spec"]["template"]["spec"] for name in ("master.yaml", "workers.yaml")}


def test_every_manifest_is_valid_and_has_no_unknown_field(manifests):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    version = kubernetes_validate.latest_version()
    for name, manifest in manifests.items():
        assert kubernetes_validate.validate(manifest, version, strict=True) is not None, name


def test_a_misspelt_field_would_be_found(manifests):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    pods(manifests)["workers.yaml"]["securtyContext"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            manifests["workers.yaml"], kubernetes_validate.latest_version(), strict=True
        )


def test_there_is_everything_a_cluster_needs_and_no_broker(manifests):
    assert [(m["kind"], m["metadata"]["name"]) for m in manifests.values()] == [
        ("ConfigMap", "sealbook-lab-authority"),
        ("Service", "sealbook-lab-master"),
        ("Deployment", "sealbook-lab-master"),
        ("Deployment", "sealbook-lab-worker"),
        ("NetworkPolicy", "sealbook-lab-members"),
    ]
    assert "broker" not in {word for each in commands(manifests) for word in each}


def commands(manifests: dict) -> list[list[str]]:
    return [
        each.get("command", []) + each["args"]
        for pod in pods(manifests).values()
        for each in pod["containers"]
    ]


def test_no_secret_is_anywhere(manifests):
    text = json.dumps(manifests)
    assert "PRIVATE KEY" not in text
    assert '"Secret"' not in text
    assert "secretKeyRef" not in text
    words = re.findall(r'"([^"]*(?:password|secret|token|passphrase)[^"]*)"', text, re.IGNORECASE)
    # The latter is a volume of what the user makes: the simulated platform, which protects nothing.
    assert set(words) <= {"automountServiceAccountToken", "secret", "secretName"}
    assert set(manifests["configmap.yaml"]["data"]) == {"ca.pem"}


def test_only_simulated_nodes_see_the_simulated_platform():
    assert "platform" not in json.dumps(rendered(WISHES))
    for pod in pods(rendered(PLAIN)).values():
        (volume,) = [each for each in pod["volumes"] if "secret" in each]
        assert volume["secret"]["secretName"] == "sealbook-lab-platform"


def test_the_masters_name_is_its_service_and_its_own_pod_and_what_workers_dial():
    manifests = rendered(WISHES)
    name = manifests["master-service.yaml"]["metadata"]["name"]
    assert manifests["master-service.yaml"]["spec"]["clusterIP"] == "None"
    assert pods(manifests)["master.yaml"]["hostname"] == name
    master, worker = commands(manifests)
    assert master[master.index("--host") + 1] == name
    assert worker[worker.index("--master") + 1] == f"spark://{name}:{kubernetes.MASTER_PORT}"
    assert WISHES.profile.master == f"spark://{name}.sealbook.svc:{kubernetes.MASTER_PORT}"
    selector = manifests["master-service.yaml"]["spec"]["selector"]
    assert selector == manifests["master.yaml"]["spec"]["template"]["metadata"]["labels"]


def test_there_is_one_master_at_any_time_and_as_many_workers_as_said():
    manifests = rendered(WISHES)
    assert manifests["master.yaml"]["spec"]["replicas"] == 1
    assert manifests["master.yaml"]["spec"]["strategy"] == {"type": "Recreate"}
    assert manifests["workers.yaml"]["spec"]["replicas"] == 3


def test_every_path_of_a_command_is_one_that_is_mounted_or_in_the_image(manifests):
    for (name, pod), command in zip(pods(manifests).items(), commands(manifests), strict=True):
        (container,) = pod["containers"]
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts <= {volume["name"] for volume in pod["volumes"]}, name
        for path in (word for word in command if word.startswith("/")):
            assert path.startswith((*mounted, "/opt/sealbook/node")), path


def test_containers_have_no_rights(manifests):
    for spec in pods(manifests).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"] + spec.get("initContainers", []):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_nodes_with_enclave_memory_run_in_gramine_and_the_others_do_not():
    for command, pod in zip(commands(rendered(WISHES)), pods(rendered(WISHES)).values(), strict=True):
        assert command[command.index("--tee") + 1] == "gramine-sgx"
        assert command[command.index("--image") + 1] == "/opt/sealbook/node"
        assert command[command.index("--tables") + 1] == "/data/sealed"
        assert pod["containers"][0]["resources"]["limits"]["sgx.intel.com/epc"] == "8Gi"
    text = json.dumps(rendered(PLAIN))
    assert "sgx" not in text
    assert "--tee" not in text


def test_a_worker_has_memory_for_its_executor_beside_its_own():
    (container,) = pods(rendered(WISHES))["workers.yaml"]["containers"]
    assert container["resources"]["limits"]["memory"] == f"{1024 + 2048 + 1024}Mi"


def test_only_members_and_the_named_network_reach_members():
    spec = rendered(WISHES)["network-policy.yaml"]["spec"]
    (rule,) = spec["ingress"]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": spec["podSelector"]["matchLabels"]}},
        {"ipBlock": {"cidr": "10.1.0.0/16"}},
    ]
    (only,) = rendered(PLAIN)["network-policy.yaml"]["spec"]["ingress"]
    assert len(only["from"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"image": "node:latest"},
        {"image": ""},
        {"name": "Lab"},
        {"namespace": "a/b"},
        {"namespace": "Lab"},
        {"broker": "http://broker.example.org:8440"},
        {"ca": "no certificate"},
        {"workers": 0},
        {"workers": 1001},
        {"cores": 0},
        {"memory": "much"},
        {"epc": "2"},
        {"gramine_image": "opt"},
        {"gramine_image": "/opt/../etc"},
        {"tables": "claim"},
        {"tables": "claim:data"},
        {"tables": "Claim:/data"},
        {"tables": "claim:/tmp/x"},
        {"tables": "claim:/opt"},
        {"drivers": "10.1.0.0/33"},
        {"drivers": "10.1.0.1/16"},
        {"master": "master:7077"},
    ],
)
def test_what_cannot_be_rendered_is_one_sentence(change):
    with pytest.raises(InputError) as refusal:
        dataclasses.replace(WISHES, **change)
    assert "\n" not in str(refusal.value)


def test_files_are_not_replaced_unasked(tmp_path):
    manifests = kubernetes.render(WISHES)
    written = kubernetes.write(manifests, tmp_path / "out", force=False)
    assert [path.name for path in written] == list(manifests)
    with pytest.raises(InputError, match="--force"):
        kubernetes.write(manifests, tmp_path / "out", force=False)
    kubernetes.write(manifests, tmp_path / "out", force=True)


class TestCommand:
    """`sealbook cluster render k8s`."""

    @pytest.fixture
    def arguments(self, tmp_path):
        (tmp_path / "ca.pem").write_text(WISHES.ca)
        given = ["cluster", "render", "k8s", "lab", "--image", IMAGE, "--broker", WISHES.broker]
        return [*given, "--ca", str(tmp_path / "ca.pem")]

    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SEALBOOK_HOME", str(tmp_path / "home"))

    @staticmethod
    def run(arguments):
        from sealbook.cli import main

        with pytest.raises(SystemExit) as end:
            main(arguments)
        return end.value.code

    @pytest.mark.parametrize("missing", ["--broker", "--ca"])
    def test_without_a_broker_and_its_authority_it_says_why_that_runs_elsewhere(
        self, arguments, missing, capsys
    ):
        place = arguments.index(missing)
        assert self.run(arguments[:place] + arguments[place + 2 :]) == 2
        assert "data owner's own machine" in capsys.readouterr().err

    def test_standard_output_is_one_document_after_the_other_and_nothing_else(self, arguments, capsys):
        assert self.run(arguments) == 0
        said = capsys.readouterr()
        assert len([json.loads(each) for each in said.out.split("---\n")]) == 5
        assert "simulated and protect nothing" in said.err

    def test_the_profile_is_saved_when_asked_for_and_replaces_no_other_unasked(self, arguments, capsys):
        assert self.run(arguments) == 0
        assert profiles.load_all() == {}
        assert self.run([*arguments, "--profile"]) == 0
        assert profiles.load("lab").master == "spark://sealbook-lab-master.sealbook.svc:7077"
        assert self.run([*arguments, "--profile", "--master", "spark://10.1.2.3:7077"]) == 2
        assert "--force" in capsys.readouterr().err
        assert self.run([*arguments, "--profile", "--master", "spark://10.1.2.3:7077", "--force"]) == 0
        assert profiles.load("lab").master == "spark://10.1.2.3:7077"
