"""Every protective setting is asked for, cannot be changed, and holds no secret."""

from __future__ import annotations

import re

import pytest

from sealbook.errors import RefusedError
from sealbook.spark import settings

#: Written down once more, so that none is left out or weakened by mistake.
ALL_PROTECTIVE = """
spark.ssl.rpc.enabled=true spark.ssl.rpc.protocol=AttestedTLS spark.ssl.rpc.openSslEnabled=false
spark.ssl.rpc.keyStore=STORE spark.ssl.rpc.keyStorePassword=unused spark.ssl.rpc.keyPassword=unused
spark.ssl.rpc.trustStore=STORE spark.ssl.rpc.trustStorePassword=unused spark.ssl.enabled=true
spark.ssl.protocol=AttestedTLS spark.ssl.openSslEnabled=false spark.ssl.keyStore=STORE
spark.ssl.keyStorePassword=unused spark.ssl.keyPassword=unused spark.ssl.trustStore=STORE
spark.ssl.trustStorePassword=unused spark.ssl.needClientAuth=true spark.ssl.useNodeLocalConf=true
spark.authenticate=false spark.network.crypto.enabled=false spark.io.encryption.enabled=true
spark.io.encryption.keySizeBits=256 spark.python.unix.domain.socket.enabled=true
spark.python.worker.memory=1048576t spark.python.worker.faulthandler.enabled=false
spark.sql.execution.pyspark.udf.faulthandler.enabled=false spark.master.rest.enabled=false
spark.ui.enabled=false spark.driver.log.persistToDfs.enabled=false
spark.shuffle.service.enabled=false
spark.sql.streaming.stateStore.providerClass=org.apache.spark.sql.execution.streaming.state.HDFSBackedStateStoreProvider
spark.sql.catalogImplementation=in-memory spark.hadoop.fs.sealed.impl=sealbook.fs.SealedFileSystem
spark.hadoop.parquet.crypto.factory.class=org.apache.parquet.crypto.keytools.PropertiesDrivenCryptoFactory
spark.hadoop.parquet.encryption.kms.client.class=sealbook.parquet.SealbookKms
spark.redaction.regex=(?i)secret|password|passphrase|token|access[.]?key|private[.]?key
"""
ALL_FORBIDDEN = """
spark.ssl. spark.authenticate. spark.network.crypto. spark.io.encryption.
spark.driver.extraJavaOptions spark.driver.defaultJavaOptions spark.driver.extraClassPath
spark.driver.extraLibraryPath spark.driver.userClassPathFirst spark.executor.extraJavaOptions
spark.executor.defaultJavaOptions spark.executor.extraClassPath spark.executor.extraLibraryPath
spark.executor.userClassPathFirst spark.driver.defaultExtraClassPath
spark.executor.defaultExtraClassPath spark.jars spark.jars. spark.archives spark.submit.pyFiles
spark.files spark.sql.hive.metastore.jars spark.sql.hive.metastore.jars.
spark.sql.maven.additionalRemoteRepositories spark.pyspark.python spark.pyspark.driver.python
spark.sql.execution.pyspark.python spark.r. spark.sparkr. spark.resources.discoveryPlugin
spark.driver.resource. spark.executor.resource. spark.plugins spark.plugins. spark.remote
spark.connect. spark.metrics.conf spark.metrics.conf. spark.driver.log.localDir
spark.driver.log.dfsDir spark.python.profile.dump spark.python.unix.domain.socket.dir
spark.python.daemon.module spark.python.worker.module spark.ui.store.path spark.deploy.recoveryMode
spark.hadoop.fs.sealed. spark.hadoop.fs.AbstractFileSystem.sealed.
"""
ALL_SEALED = """
spark.sql.warehouse.dir spark.eventLog.dir spark.history.fs.logDirectory spark.checkpoint.dir
spark.sql.streaming.checkpointLocation spark.storage.decommission.fallbackStorage.path
"""


def test_none_is_left_out_or_weakened():
    store = str(settings.DUMMY_STORE)
    assert [
        f"{s.key}={s.value}".replace(store, "STORE") for s in settings.PROTECTIVE
    ] == ALL_PROTECTIVE.split()
    assert list(settings.FORBIDDEN) == ALL_FORBIDDEN.split()
    assert list(settings.SEALED_PATHS) == ALL_SEALED.split()


@pytest.fixture
def conf():
    return settings.settings(None)


def test_the_settings_pass_their_own_check(conf):
    settings.require(conf)


@pytest.mark.parametrize("setting", settings.PROTECTIVE, ids=lambda s: s.key)
def test_without_any_one_of_them_nothing_starts(conf, setting):
    del conf[setting.key]
    with pytest.raises(RefusedError, match=setting.key) as refusal:
        settings.require(conf)
    assert setting.reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("setting", settings.PROTECTIVE, ids=lambda s: s.key)
def test_with_any_one_of_them_changed_nothing_starts(conf, setting):
    other = {"true": "false", "false": "true"}.get(setting.value, setting.value + "x")
    with pytest.raises(RefusedError, match=setting.key):
        settings.require(conf | {setting.key: other})
    assert len(settings.overridden({setting.key: other})) == 1


@pytest.mark.parametrize("key", settings.FORBIDDEN)
def test_what_would_undo_a_protection_may_not_be_set(conf, key):
    name = f"{key}anything" if key.endswith(".") else key
    with pytest.raises(RefusedError, match="may not be set"):
        settings.require(conf | {name: "x"})
    assert len(settings.overridden({name: "x"})) == 1


@pytest.mark.parametrize("key", settings.SEALED_PATHS)
@pytest.mark.parametrize(
    "value", ["/data", "file:/data", "hdfs://x/y", "sealed", "SEALED:x", "", " sealed:///x"]
)
def test_directories_for_data_are_sealed_or_refused(conf, key, value):
    with pytest.raises(RefusedError, match="in clear"):
        settings.require(conf | {key: value})
    settings.require(conf | {key: "sealed:///data/x"})


def test_event_logs_need_a_sealed_directory(conf):
    with pytest.raises(RefusedError, match="eventLog"):
        settings.require(conf | {"spark.eventLog.enabled": "True"})
    settings.require(conf | {"spark.eventLog.enabled": "true", "spark.eventLog.dir": "sealed:///logs"})


@pytest.mark.parametrize("key", ["spark.sql.warehouse.dir", settings.CHECKPOINTS])
def test_without_a_place_for_tables_and_for_the_state_of_streams_nothing_starts(conf, key):
    assert conf[key].startswith("sealed:///")
    del conf[key]
    with pytest.raises(RefusedError, match=f"{re.escape(key)} is missing"):
        settings.require(conf)


def test_booleans_may_be_written_as_python_writes_them(conf):
    settings.require(conf | {"spark.io.encryption.enabled": "True", "spark.ui.enabled": "False"})
    assert settings.overridden({"spark.io.encryption.enabled": "True"}) == []


def test_harmless_settings_are_the_users_own(conf):
    own = {
        "spark.sql.shuffle.partitions": "7",
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.PYTHONHASHSEED": "0",
    }
    settings.require(conf | own)
    assert settings.overridden(own) == []


VARIABLES = (
    *(
        "JAVA_HOME",
        "SPARK_HOME",
        "SPARK_LOCAL_DIRS",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "pythonpath",
    ),
    *("PYSPARK_PYTHON", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"),
    *(
        "_JAVA_OPTIONS",
        "CLASSPATH",
        "OPENSSL_CONF",
        "SSL_CERT_FILE",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "BASH_ENV",
    ),
    *("ENV", "PATH", "HOME", "TMPDIR", "TMP", "SEALBOOK_HOME", "HADOOP_CONF_DIR", "PYTHONHASHSEED2"),
)


@pytest.mark.parametrize("name", VARIABLES)
def test_no_variable_that_chooses_code_reaches_python_workers(conf, name):
    with pytest.raises(RefusedError, match=rf"executorEnv\.{name} may not be set"):
        settings.require(conf | {f"spark.executorEnv.{name}": "x"})


#: What could be thought to carry data or code out, and why it is left to the user.
LEFT_OPEN = {
    "spark.local.dir": "SPARK_LOCAL_DIRS of the node's environment comes before it; see test_java.py",
    "spark.extraListeners": "names a class; there are no others than the measured ones",
    "spark.sql.extensions": "names a class; there are no others than the measured ones",
    "spark.sql.queryExecutionListeners": "names a class; there are no others than the measured ones",
    "spark.sql.catalog.x": "names a class; where a table goes is the code's decision, as for any writer",
    "spark.kryo.registrator": "names a class; there are no others than the measured ones",
    "spark.ui.port": "the page of a driver is off, which no other setting changes",
    "spark.ui.filters": "the page of a driver is off, which no other setting changes",
    "spark.history.ui.port": "no history server is started",
    "spark.eventLog.overwrite": "only the directory counts, which must be sealed:",
    "spark.kubernetes.container.image": "drivers are local or of a standalone cluster, and read no such",
    "spark.yarn.archive": "drivers are local or of a standalone cluster, and read no such",
    "spark.deploy.zookeeper.url": "only masters read it, and theirs are fixed",
    "spark.executorEnv.OMP_NUM_THREADS": "sizes and switches of libraries",
}


@pytest.mark.parametrize("key", LEFT_OPEN)
def test_what_carries_nothing_out_is_the_users_own(conf, key):
    settings.require(conf | {key: "x"})


def test_the_page_of_a_driver_stays_off_whatever_else_is_said_of_it(conf):
    with pytest.raises(RefusedError, match=r"spark\.ui\.enabled"):
        settings.require(conf | {"spark.ui.enabled": "true", "spark.ui.port": "4040"})


def test_the_sentence_names_the_first_and_counts_the_rest(conf):
    with pytest.raises(RefusedError, match=r"and 1 more"):
        settings.require(
            conf | {"spark.driver.extraJavaOptions": "-x", "spark.authenticate.secret": "hunter2"}
        )


def test_values_that_may_be_secrets_or_escape_sequences_are_not_shown_in_full(conf):
    with pytest.raises(RefusedError) as refusal:
        settings.require(conf | {"spark.authenticate.secret": "hunter2"})
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(RefusedError) as refusal:
        settings.require(conf | {"spark.eventLog.dir": "\x1b[2J" + "x" * 500})
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_paths_are_quoted_in_sealed_urls(tmp_path):
    assert settings.sealed_url(tmp_path / "a b%") == f"sealed://{tmp_path}/a%20b%25"


def test_executors_start_with_the_tls_settings_and_nothing_of_jobs():
    assert settings.executor_settings().keys() >= {"spark.ssl.rpc.enabled", "spark.ssl.rpc.protocol"}
    assert not any(key.startswith(("spark.sql", "spark.hadoop")) for key in settings.executor_settings())
    assert settings.daemon_settings()["spark.master.rest.enabled"] == "false"
    assert settings.daemon_settings()["spark.deploy.recoveryMode"] == "NONE"


def test_a_profile_adds_where_and_how_large():
    from profile_of_a_test import PROFILE

    conf = settings.settings(PROFILE)
    settings.require(conf)
    assert conf["spark.master"] == PROFILE.master
    assert conf["spark.executor.memory"] == PROFILE.memory
    assert PROFILE.ca not in conf.values()
