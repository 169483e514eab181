"""Manifests: valid for Kubernetes, and with no secret in them."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from profile_of_a_test import authority

from sealbook.errors import InputError
from sealbook.spark import kubernetes, settings
from sealbook.spark.kubernetes import Wishes

IMAGE = "registry.example/sealbook/node@sha256:" + "ab" * 32
WISHES = Wishes(name="lab", image=IMAGE, broker_image=IMAGE, epc="2Gi", ca=authority())


@pytest.fixture(params=[WISHES, dataclasses.replace(WISHES, epc=None, ca=None)], ids=["sgx", "plain"])
def manifests(request):
    return {name: json.loads(text) for name, text in kubernetes.render(request.param).items()}


def test_every_manifest_is_valid_and_has_no_unknown_field(manifests):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    version = kubernetes_validate.latest_version()
    for name, manifest in manifests.items():
        assert kubernetes_validate.validate(manifest, version, strict=True) is not None, name


def test_a_misspelt_field_would_be_found(manifests):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    spoiled = manifests["executor-template.yaml"]
    spoiled["spec"]["securtyContext"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoiled, kubernetes_validate.latest_version(), strict=True)


def test_there_is_everything_a_cluster_needs(manifests):
    assert [(m["kind"], m["metadata"]["name"]) for m in manifests.values()] == [
        ("ConfigMap", "sealbook-lab-settings"),
        ("Deployment", "sealbook-lab-broker"),
        ("Service", "sealbook-lab-broker"),
        ("NetworkPolicy", "sealbook-lab-nodes"),
        ("NetworkPolicy", "sealbook-lab-broker"),
        ("Pod", "sealbook-lab-driver"),
        ("Pod", "sealbook-lab-executor"),
    ]


def test_no_secret_is_anywhere(manifests):
    text = json.dumps(manifests)
    assert "PRIVATE KEY" not in text
    assert '"Secret"' not in text
    assert "secretKeyRef" not in text
    words = re.findall(r'"([^"]*(?:password|secret|token|passphrase)[^"]*)"', text, re.IGNORECASE)
    allowed = {"automountServiceAccountToken"}
    assert {word for word in words if word not in allowed and "spark.redaction.regex" not in word} == set()
    passwords = re.findall(r"(\S*[pP]assword) (\S+?)\\n", text)
    assert passwords
    assert {value for _, value in passwords} == {settings.DUMMY_PASSWORD}


def test_the_settings_are_all_protective_ones_and_pass_their_check_but_for_the_stores_place():
    found = kubernetes.spark_settings(WISHES)
    here = {
        key: str(settings.DUMMY_STORE) for key, value in found.items() if value == "/etc/sealbook/unused.p12"
    }
    assert len(here) == 4
    settings.require(found | here)


def test_no_path_of_this_machine_is_in_a_manifest():
    text = "".join(kubernetes.render(WISHES).values())
    assert str(settings.DUMMY_STORE.parent) not in text


def test_containers_have_no_rights(manifests):
    for name in ("executor-template.yaml", "driver-template.yaml"):
        spec = manifests[name]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_sgx_memory_is_a_limit_of_nodes_and_not_of_the_broker():
    manifests = {name: json.loads(text) for name, text in kubernetes.render(WISHES).items()}
    (container,) = manifests["executor-template.yaml"]["spec"]["containers"]
    assert container["resources"]["limits"]["sgx.intel.com/epc"] == "2Gi"
    assert "sgx" not in json.dumps(manifests["broker-deployment.yaml"])


@pytest.mark.parametrize(
    "change",
    [
        {"image": "node:latest"},
        {"image": ""},
        {"broker_image": "x@sha256:12"},
        {"name": "Lab"},
        {"namespace": "a/b"},
        {"cores": 0},
        {"memory": "much"},
        {"epc": "2"},
        {"ca": "no certificate"},
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
