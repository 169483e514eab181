"""Images of nodes and of drivers: what is in them, what the lint wants of a JVM, and who refuses them."""

from __future__ import annotations

import copy
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gramine_stand_in import GramineStandIn, small_image
from sealbook.broker.certificates import authority_id
from sealbook.errors import InputError, RefusedError
from sealbook.image import java
from sealbook.image.build import Recipe, build
from sealbook.image.inspection import inspect_image
from sealbook.image.lint import lint
from sealbook.image.roles import ROLES
from sealbook.spark.gramine_nodes import GramineNodes
from sealbook.spark.gramine_owner import check_owner
from sealbook.spark.profiles import Profile


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def gramine(place):
    stand_in = GramineStandIn(place / "gramine")
    with stand_in.on_path():
        yield stand_in


@pytest.fixture(scope="module")
def node(gramine, place):
    return small_image(place / "node", role="spark-worker", tables="/srv/tables")


@pytest.fixture
def manifest(node):
    return tomllib.loads((node.path / "kernel.manifest").read_text())


def certificate(common_name: str, key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def profile(ca: str) -> Profile:
    return Profile("trial", "spark://127.0.0.1:7077", "https://127.0.0.1:8440", ca)


# -- what is in them -----------------------------------------------------------------------------


def test_a_node_runs_its_own_entry_point_with_measured_java_and_may_be_told_where_tables_are(manifest):
    assert manifest["loader"]["argv"] == ["python3", "-I", "-B", "-m", "sealbook.spark.gramine_node"]
    assert manifest["loader"]["env"]["JAVA_HOME"] == "/java"
    assert {"uri": "file:image/root/java/bin/java"}.items() <= next(
        entry.items() for entry in manifest["sgx"]["trusted_files"] if entry["uri"].endswith("bin/java")
    )
    assert {"path": "/srv/tables", "uri": "file:work"} in manifest["fs"]["mounts"]
    assert manifest["fs"]["start_dir"] == "/tmp"
    assert manifest["sgx"]["allowed_files"] == ["file:launch/registration", "file:work/"]
    assert manifest["sgx"]["use_exinfo"] is True
    assert manifest["sgx"]["max_threads"] == 256
    assert lint(manifest) == []


def test_a_driver_is_a_kernel_with_java(gramine, place):
    image = small_image(place / "driver", role="spark-driver")
    found = tomllib.loads((image.path / "kernel.manifest").read_text())
    assert found["loader"]["argv"][-1] == "sealbook.jupyter.gramine_kernel"
    assert found["loader"]["env"]["JAVA_HOME"] == "/java"
    assert found["fs"]["start_dir"] == "/work"
    assert lint(found) == []


def test_a_plain_kernel_has_no_java(gramine, place):
    found = tomllib.loads((small_image(place / "plain").path / "kernel.manifest").read_text())
    assert "JAVA_HOME" not in found["loader"]["env"]
    assert found["sgx"]["use_exinfo"] is False


def test_inspection_shows_the_role_and_why_the_tables_are_safe(node):
    found = inspect_image(node.path)
    assert found.facts.role == "spark-worker"
    assert found.objections == ()
    (tables,) = (mount for mount in found.mounts if mount.path == "/srv/tables")
    assert tables.host_changes
    assert "sealed tables" in tables.why


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"role": "spark-master"}, "There is no role 'spark-master'"),
        ({"role": "spark-worker", "work": "encrypted"}, "no directory of a notebook"),
        ({"role": "kernel", "tables": "/srv"}, "belongs to --role spark-worker"),
        ({"role": "spark-worker", "tables": "srv"}, "absolute path"),
        ({"role": "spark-worker", "tables": "/"}, "absolute path"),
        ({"role": "spark-worker", "tables": "/tmp"}, "own memory"),
        ({"role": "spark-worker", "tables": "/tmp/t"}, "own memory"),
        ({"role": "spark-worker", "tables": "/srv/../x"}, "absolute path"),
    ],
)
def test_what_cannot_be_built_is_said_first(gramine, place, recipe, said):
    with pytest.raises(InputError, match=said):
        build(Recipe(**recipe), place / "none")
    assert not (place / "none").exists()


@pytest.mark.parametrize(
    "tables",
    ["/java/x", "/python", "/lib/x", "/scratch/n/t", "/scratch", "/run", "/data/x"],
)
def test_tables_cannot_lie_where_code_or_the_nodes_own_files_are(gramine, place, tables):
    with pytest.raises(RefusedError, match="unsafe"):
        small_image(place / "none", role="spark-worker", tables=tables)
    assert not (place / "none").exists()


def test_of_sparks_jars_those_stay_out_that_no_node_uses():
    assert java.is_left_out(PurePosixPath("pyspark/jars/rocksdbjni-9.8.4.jar"))
    assert java.is_left_out(PurePosixPath("pyspark/sbin/start-worker.sh"))
    assert not java.is_left_out(PurePosixPath("pyspark/jars/hive-storage-api-2.8.1.jar"))
    assert not java.is_left_out(PurePosixPath("pyspark/daemon.py"))


# -- the lint ------------------------------------------------------------------------------------


def without(manifest, ending):
    trusted = manifest["sgx"]["trusted_files"]
    manifest["sgx"]["trusted_files"] = [entry for entry in trusted if not entry["uri"].endswith(ending)]
    assert len(manifest["sgx"]["trusted_files"]) == len(trusted) - 1


@pytest.mark.parametrize(
    "part", ["java/bin/java", "lib/modules", "lib/server/libjvm.so", "conf/security/java.security"]
)
def test_every_part_of_java_is_measured(manifest, part):
    without(manifest, part)
    assert any("nobody knows which Java runs" in each.reason for each in lint(manifest))


def test_sealbooks_own_jar_is_measured(manifest):
    without(manifest, "/sealbook.jar")
    assert any("attested TLS" in each.reason for each in lint(manifest))


@pytest.mark.parametrize("home", ["/usr/lib/jvm/java", "/scratch/java", "/srv/tables/java", "/bin"])
def test_no_other_java_runs(manifest, home):
    manifest["loader"]["env"]["JAVA_HOME"] = home
    assert lint(manifest)


@pytest.mark.parametrize("value", [None, "java", "", "/java/../x"])
def test_a_node_says_where_its_java_is(manifest, value):
    if value is None:
        del manifest["loader"]["env"]["JAVA_HOME"]
    else:
        manifest["loader"]["env"]["JAVA_HOME"] = value
    assert any(each.setting == "loader.env.JAVA_HOME" for each in lint(manifest))


def test_a_jvm_is_told_of_memory_faults_and_gets_threads(manifest):
    fewer = copy.deepcopy(manifest)
    fewer["sgx"]["max_threads"] = 64
    assert "a JVM that gets none ends" in lint(fewer)[0].reason
    manifest["sgx"]["use_exinfo"] = False
    assert "would crash" in lint(manifest)[0].reason


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "LD_PRELOAD"])
def test_no_variable_brings_options_or_code_into_the_jvm(manifest, name):
    manifest["loader"]["env"][name] = "-javaagent:/x"
    assert [each.setting for each in lint(manifest)] == [f"loader.env.{name}"]


def test_only_a_node_has_another_place_that_the_host_changes(manifest):
    manifest["loader"]["argv"][-1] = "sealbook.jupyter.gramine_kernel"
    assert any("only /run/sealbook/registration and /work" in each.reason for each in lint(manifest))


def test_a_second_directory_of_the_host_is_refused(manifest):
    manifest["fs"]["mounts"].append({"path": "/more", "uri": "file:more"})
    manifest["sgx"]["allowed_files"].append("file:more/")
    assert any("only /run/sealbook/registration and /srv/tables" in each.reason for each in lint(manifest))


# -- who refuses them ----------------------------------------------------------------------------


def test_a_kernels_image_starts_no_node_and_a_nodes_image_no_kernel(node, gramine, place):
    from sealbook.cli.install_gramine import ensure_gramine

    kernel = small_image(place / "kernel")
    with pytest.raises(InputError, match="one of kernels and runs no node"):
        GramineNodes.open(kernel.path, "gramine-direct", place)
    with pytest.raises(InputError, match="one of nodes, and no kernel runs in it"):
        ensure_gramine("gramine-direct", image=node.path)


def test_hardware_is_asked_for_unless_it_is_said_that_there_is_none(node, place):
    if Path("/dev/sgx_enclave").exists():
        pytest.skip("this machine has an SGX device")
    with pytest.raises(Exception, match="no hardware enclave can start"):
        GramineNodes.open(node.path, "gramine-sgx", place)
    assert GramineNodes.open(node.path, "gramine-direct", place).tee == "gramine-direct"
    with pytest.raises(InputError, match="not a tee of nodes"):
        GramineNodes.open(node.path, "simulated", place)


def test_a_directory_of_tables_that_is_missing_is_said(node, place):
    with pytest.raises(InputError, match=r"no directory /srv/tables|--tables"):
        GramineNodes.open(node.path, "gramine-direct", place / "none")


def test_a_node_joins_only_the_clusters_of_the_broker_its_image_names():
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ours = certificate("a", key)
    owner = authority_id(ours)
    check_owner(profile(ours), owner)
    # Issued anew for the same key.
    check_owner(profile(certificate("b", key)), owner)
    check_owner(profile(certificate("a", other)), None)
    with pytest.raises(RefusedError, match="joins only the clusters of the broker it was built for"):
        check_owner(profile(certificate("a", other)), owner)


def test_an_authority_is_a_certificate():
    with pytest.raises(InputError, match="not one certificate in PEM"):
        authority_id("none")


def test_every_role_is_built_and_lints(gramine, place):
    for role in ROLES:
        assert lint(small_image(place / f"each-{role}", role=role).manifest()) == []
