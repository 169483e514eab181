"""A driver as a program of its own: attests as a kernel's driver does, then runs a job of a test.

``python -I -B driver_program.py INSTRUCTIONS``: a JSON file with "profile" (a name), "host", "directory",
"job" (a file with a function ``run(spark, arguments)``), "arguments", "settings" (added), "unset" (what to
take away: key -> value or null), "plain_gateway" (PySpark's own gateway, without TLS). Prints what the job
returns, as JSON. "unattested": with the statement of a kernel in gramine-direct in place of evidence.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

from sealbook.attestation.unattested import UnattestedAttester
from sealbook.simulated_loader import MeasuredAttester, Measuring

MAIN = "sealbook.spark.DriverMain"


class PlainJvm:
    """A driver's JVM with PySpark's own gateway: TCP on loopback in clear."""

    def __init__(self, command, environment, frame, info) -> None:
        import subprocess
        import time

        from pyspark.serializers import UTF8Deserializer, read_int

        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment | {"_PYSPARK_DRIVER_CONN_INFO_PATH": str(info), "PYSPARK_PIN_THREAD": "true"},
        )
        self.pid = self.process.pid
        self.process.stdin.write(frame)
        self.process.stdin.flush()
        while not info.exists():
            assert self.process.poll() is None
            time.sleep(0.1)
        with info.open("rb") as file:
            port, token = read_int(file), UTF8Deserializer().loads(file)
        from py4j.clientserver import ClientServer, JavaParameters, PythonParameters
        from py4j.java_gateway import java_import

        from sealbook.spark import gateway

        self.gateway = ClientServer(
            JavaParameters(port=port, auth_token=token, auto_convert=True),
            PythonParameters(port=0, eager_load=False),
        )
        for name in gateway._IMPORTS:
            java_import(self.gateway.jvm, name)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    # What a kernel in gramine-direct hands in: nothing there can attest itself, so this program can, too.
    attester = UnattestedAttester() if told.get("unattested") else MeasuredAttester(Measuring())
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    from sealbook import jdk
    from sealbook.spark import credentials, jvm, profiles, settings
    from sealbook.spark.gateway import DriverJvm

    profile = profiles.load(told["profile"])
    host = told["host"]
    conf = settings.settings(profile) | {
        "spark.driver.host": host,
        "spark.driver.bindAddress": host,
        "spark.app.name": "a test",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.warehouse.dir": settings.sealed_url(Path(told["directory"]) / "warehouse"),
        **told.get("settings", {}),
    }
    settings.require(conf)
    for key, value in told.get("unset", {}).items():
        conf.pop(key, None)
        if value is not None:
            conf[key] = value
    enrolled = credentials.enrol(profile, credentials.DRIVER, attester, [host])
    with tempfile.TemporaryDirectory(prefix="sealbook-driver-") as directory:
        local, temporary = Path(directory, "b"), Path(directory, "t")
        local.mkdir()
        temporary.mkdir()
        main = "org.apache.spark.api.python.PythonGatewayServer" if told.get("plain_gateway") else MAIN
        command = jvm.command(
            jdk.find_java(),
            role=credentials.DRIVER,
            main=main,
            options=jvm.definitions(conf),
            temporary=temporary,
        )
        environment = jvm.environment(local_dirs=local, temporary=temporary, host=host)
        if told.get("plain_gateway"):
            driver = PlainJvm(command, environment, enrolled.frame(), Path(directory, "info"))
        else:
            driver = DriverJvm(command, environment, enrolled.frame)
        os.environ.pop("PYSPARK_PYTHON", None)
        try:
            print(f"jvm {driver.pid}", file=sys.stderr, flush=True)
            context = SparkContext(
                conf=SparkConf(loadDefaults=False, _jvm=driver.gateway.jvm).setAll(conf.items()),
                gateway=driver.gateway,
            )
            spec = importlib.util.spec_from_file_location("job", told["job"])
            job = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(job)
            result = job.run(SparkSession(context), told.get("arguments", {}))
            context.stop()
        except BaseException:
            if isinstance(driver, DriverJvm):
                sys.stderr.write(driver._output._kept.decode(errors="replace"))
            raise
        finally:
            driver.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
