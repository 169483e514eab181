"""The command line of an executor: what Spark writes passes, anything else does not."""

from __future__ import annotations

import pytest

from sealbook.errors import RefusedError
from sealbook.spark import executor_command, jvm, settings
from sealbook.spark.executor_command import MAIN, check

HOST = "127.0.0.2"


def command(*options: str, main: str = MAIN, **arguments: str) -> list[str]:
    """As Spark 4.3 writes it; taken from a worker's log."""
    given = {
        "--driver-url": "spark://CoarseGrainedScheduler@127.0.0.1:34441",
        "--executor-id": "1",
        "--hostname": HOST,
        "--cores": "1",
        "--app-id": "app-20261123114115-0000",
        "--worker-url": "spark://Worker@127.0.0.2:39207",
        "--resourceProfileId": "0",
        **{f"--{name.replace('_', '-')}": value for name, value in arguments.items()},
    }
    return [
        "-cp",
        "/x/conf/:/x/jars/slf4j-api-2.0.17.jar:/x/jars/*",
        "-Xmx800M",
        "-Dspark.driver.port=34441",
        "-Dspark.rpc.askTimeout=30s",
        "-Djava.net.preferIPv6Addresses=false",
        "-XX:+IgnoreUnrecognizedVMOptions",
        *jvm.SPARK_OPTIONS,
        "--sun-misc-unsafe-memory-access=allow",
        *jvm.definitions(settings.executor_settings()),
        *options,
        main,
        *(part for pair in given.items() for part in pair),
    ]


def test_what_spark_writes_passes_and_only_harmless_parts_are_taken_over():
    checked = check(command(), HOST)
    assert checked.heap == "800m"
    assert checked.options == (
        "-Dspark.driver.port=34441",
        "-Dspark.rpc.askTimeout=30s",
        "-Djava.net.preferIPv6Addresses=false",
    )
    assert checked.arguments[:2] == ("--driver-url", "spark://CoarseGrainedScheduler@127.0.0.1:34441")


@pytest.mark.parametrize(
    "option",
    [
        "-javaagent:/tmp/evil.jar",
        "-agentlib:jdwp=transport=dt_socket,server=y,address=*:5005",
        "-agentpath:/tmp/evil.so",
        "-Xbootclasspath/a:/tmp/evil.jar",
        "-XX:+HeapDumpOnOutOfMemoryError",
        "-XX:OnOutOfMemoryError=/bin/sh",
        "-XX:-DisableAttachMechanism",
        "-XX:Flags=/tmp/flags",
        "@/tmp/arguments",
        "-Dspark.ssl.rpc.enabled=false",
        "-Dspark.ssl.rpc.protocol=TLSv1.3",
        "-Dspark.ssl.rpc.trustStore=/tmp/mine",
        "-Dspark.ssl.rpc.certChain=/tmp/mine",
        "-Dspark.authenticate=true",
        "-Dspark.authenticate.secret=x",
        "-Dspark.network.crypto.enabled=true",
        "-Dspark.network.crypto.cipher=x",
        "-Djava.security.properties=/tmp/mine",
        "-Djava.io.tmpdir=/tmp",
        "-Djava.library.path=/tmp",
        "-Dspark.rpc.x=a b",
        "-Dsealbook.role=spark-driver",
        "--patch-module=java.base=/tmp",
        "-jar",
        "--module-path",
    ],
)
def test_an_option_that_is_not_known_is_refused(option):
    with pytest.raises(RefusedError) as refusal:
        check(command(option), HOST)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "main", ["java.lang.Runtime", "org.apache.spark.deploy.SparkSubmit", "", f"{MAIN}\n"]
)
def test_another_main_class_is_refused(main):
    with pytest.raises(RefusedError, match="it would run"):
        check(command(main=main), HOST)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("driver_url", "http://127.0.0.1:1"),
        ("driver_url", "spark://Other@127.0.0.1:1"),
        ("driver_url", "spark://CoarseGrainedScheduler@127.0.0.1:1/x"),
        ("driver_url", "spark://CoarseGrainedScheduler@a b:1"),
        ("worker_url", "spark://Master@127.0.0.2:1"),
        ("executor_id", "driver"),
        ("cores", "0"),
        ("app_id", "../../etc"),
        ("hostname", "127.0.0.9"),
        ("hostname", "--bind-address"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(RefusedError):
        check(command(**{name: value}), HOST)


def test_arguments_stand_once_and_are_complete():
    whole = command()
    for spoiled in (whole[:-2], whole[:-1], [*whole, "--cores", "2"], [*whole, "--resourcesFile", "/x"]):
        with pytest.raises(RefusedError, match="not those of an executor"):
            check(spoiled, HOST)


def test_memory_must_be_said():
    with pytest.raises(RefusedError, match="how much memory"):
        check([part for part in command() if not part.startswith("-Xm")], HOST)


def test_nothing_at_all_is_refused():
    for nothing in ([], ["-cp"], ["-Xmx800M"]):
        with pytest.raises(RefusedError):
            check(nothing, HOST)


def test_values_with_control_characters_are_not_shown_as_they_are():
    with pytest.raises(RefusedError) as refusal:
        check(command("-X\x1b[2J" + "y" * 300), HOST)
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_every_argument_is_checked():
    whole = command()
    assert set(executor_command._ARGUMENTS) == set(whole[whole.index(MAIN) + 1 :: 2])
