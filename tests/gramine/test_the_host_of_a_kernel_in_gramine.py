"""What the host of a kernel in Gramine can do, without SGX to stop it from more: change files, say things."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers import kernel, run
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager
from launched import launch_directory

from sealbook.errors import RefusedError, SealbookError
from sealbook.image import Image
from sealbook.image.image import BUILT_TIME
from sealbook.image.manifest import CODE_IN_WORK

MARKER = b"a marker that the host must not find"


@pytest.fixture
def copied(image: Image, tmp_path: Path) -> Image:
    """An image to be spoilt."""
    shutil.copytree(image.path, tmp_path / "image", symlinks=True)
    return Image.open(tmp_path / "image")


def start(image: Image, **kwargs: object) -> str:
    from sealbook.cli.install_gramine import ensure_gramine

    return str(ensure_gramine("gramine-direct", image=image.path, name="gramine-copied", **kwargs)["kernel"])


def test_the_hosts_environment_does_not_reach_the_kernel(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/work/startup.py")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("SEALBOOK_SAID", "hello")
    with kernel(installed) as (_, client):
        names = run(client, "import os; sorted(os.environ)").result or ""
    assert "SEALBOOK_SAID" not in names
    assert "PYTHONSTARTUP" not in names
    assert "LD_PRELOAD" not in names
    assert "MALLOC_ARENA_MAX" in names


def test_the_command_line_is_the_manifests(client: BlockingKernelClient) -> None:
    code = "open('/proc/self/cmdline').read().split(chr(0))[:5]"
    assert run(client, code).result == "['python3', '-I', '-B', '-m', 'sealbook.jupyter.gramine_kernel']"


def test_nothing_can_be_written_to_the_image(client: BlockingKernelClient, image: Image) -> None:
    for place in ("/python/lib/python3.11/planted.py", "/bin/planted", "/planted", "/python/bin/python3"):
        error = run(client, f"open({place!r}, 'w')").error
        assert error is not None, place
    assert image.problems() == []


def test_a_module_that_the_host_puts_beside_the_notebook_is_not_imported(
    manager: KernelManager, client: BlockingKernelClient
) -> None:
    for name in ("planted.py", "sitecustomize.py", "json.py"):
        Path(manager._launch_args["cwd"], name).write_text("raise SystemExit('the host was here')\n")
    assert (run(client, "import planted").error or "").startswith("ModuleNotFoundError")


@pytest.mark.parametrize("name", CODE_IN_WORK)
def test_settings_that_the_host_puts_beside_the_notebook_are_not_read(
    name: str, manager: KernelManager, client: BlockingKernelClient
) -> None:
    Path(manager._launch_args["cwd"], name).write_text("the host was here\n")
    assert run(client, f"open('/work/{name}').read()").result == "''"
    assert run(client, f"open({name!r}).read()").result == "''"


def test_a_python_that_a_cell_starts_imports_nothing_that_the_host_put_there(
    manager: KernelManager, client: BlockingKernelClient
) -> None:
    Path(manager._launch_args["cwd"], "json.py").write_text("raise SystemExit('the host was here')\n")
    ran = run(
        client, "!python3 -c 'import json; print(json.__file__)'; python3 -m json.tool --help | head -1"
    )
    assert ran.text.startswith("/python/lib/")
    assert "the host was here" not in ran.text


def test_what_cells_and_their_processes_print_does_not_reach_the_host(installed: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file, kernel(installed, stdout=file, stderr=file) as (_, client):
        ran = run(client, "import os, subprocess, sys; os.write(1, b'printed-1'); print('printed-2')")
        ran = run(client, "!echo printed-3; echo printed-4 >&2")
        assert "printed-3" in ran.text
        run(
            client,
            "subprocess.run(['echo', 'printed-5']); subprocess.run(['echo', 'printed-6'], stdout=sys.stdout)",
        )
    assert b"printed" not in log.read_bytes()


def test_an_image_with_an_owner_answers_the_owner_and_nobody_else(
    gramine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.broker import Keyring, MemoryStore
    from sealbook.broker.ownership import make_owner
    from sealbook.image.build import Recipe, build
    from sealbook.jupyter.embedded import embedded_broker
    from sealbook.jupyter.provisioner import AttestedProvisioner

    keyring = Keyring(MemoryStore())
    monkeypatch.setattr(embedded_broker(), "keyring", keyring)
    name = start(build(Recipe(owner=make_owner(keyring)), tmp_path / "image"))
    with kernel(name) as (_, client):
        assert run(client, "6 * 7").result == "42"
    # Somebody who has the image and leaves the signature out, as a host would have to.
    monkeypatch.setattr(AttestedProvisioner, "_prepare_image", lambda self: None)
    with pytest.raises(SealbookError, match="ended before it attested itself"), kernel(name):
        pass
    monkeypatch.undo()
    theirs = Keyring(MemoryStore())
    monkeypatch.setattr(embedded_broker(), "keyring", theirs)
    with pytest.raises(SealbookError, match="signs for no image yet"), kernel(name):
        pass
    make_owner(theirs)
    with pytest.raises(SealbookError, match="answers to another owner's keyring"), kernel(name):
        pass


def test_a_file_that_the_host_adds_to_the_image_cannot_be_opened(copied: Image) -> None:
    planted = copied.path / "root/python/lib/python3.11/site-packages/planted.py"
    planted.write_text("raise SystemExit('the host was here')\n")
    with kernel(start(copied)) as (_, client):
        assert run(client, "import planted").error is not None
        assert "Error" in (
            run(client, f"open('/python/lib/python3.11/site-packages/{planted.name}')").error or ""
        )


def test_a_changed_file_is_named_before_anything_starts(copied: Image) -> None:
    name = start(copied)
    changed = copied.path / "root/bin/ls"
    changed.chmod(0o755)
    changed.write_bytes(changed.read_bytes() + b"\0")
    with pytest.raises(RefusedError, match=r"root/bin/ls has another content"), kernel(name):
        pass


def test_a_changed_manifest_is_named_before_anything_starts(copied: Image) -> None:
    name = start(copied)
    manifest = copied.path / "kernel.manifest"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace("[loader.env]", '[loader.env]\nEVIL = "1"'))
    with pytest.raises(RefusedError, match=r"kernel\.manifest has another content"), kernel(name):
        pass


def test_gramine_refuses_a_change_that_our_look_at_time_stamps_does_not_see(copied: Image) -> None:
    name = start(copied)
    archive = next((copied.path / "root/python/lib/python3.11/site-packages/.code").glob("sealbook.zip"))
    archive.chmod(0o644)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    os.utime(archive, (BUILT_TIME, BUILT_TIME))
    assert copied.problems() == []
    with pytest.raises(SealbookError, match="ended before it attested itself"), kernel(name):
        pass


def test_scratch_files_are_encrypted_on_the_host_and_gone_with_the_kernel(installed: str) -> None:
    with kernel(installed) as (manager, client):
        run(client, f"open('/scratch/marker', 'wb').write({MARKER!r} * 1000)")
        run(
            client,
            f"import tempfile; kept = tempfile.NamedTemporaryFile(); kept.write({MARKER!r}); kept.flush()",
        )
        assert (run(client, "kept.name").result or "").strip("'").startswith("/scratch/")
        directory = launch_directory(manager)
        files = [path for path in directory.joinpath("scratch").rglob("*") if path.is_file()]
        assert any(path.name == "marker" for path in files)
        assert not any(MARKER in path.read_bytes() for path in files)
        assert run(client, "open('/scratch/marker', 'rb').read(10)").result == repr(MARKER[:10])
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    assert not directory.exists()


def test_the_data_mount_opens_with_its_key_and_stays_closed_without(
    image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.broker import Keyring, MemoryStore
    from sealbook.jupyter.embedded import embedded_broker

    broker = embedded_broker()
    keyring = Keyring(MemoryStore())
    monkeypatch.setattr(broker, "keyring", keyring)
    name = start(image, data=tmp_path, data_key="study")
    keyring.create("study", guard="gramine-direct")
    with kernel(name) as (_, client):
        assert run(client, f"open('/data/results', 'wb').write({MARKER!r} * 100)").error is None
    assert MARKER not in (tmp_path / "results").read_bytes()
    with kernel(name) as (_, client):
        assert run(client, "open('/data/results', 'rb').read(10)").result == repr(MARKER[:10])
    # Guarded by a policy that asks for evidence, which this kernel has not.
    keyring.create("guarded", guard="simulated")
    with kernel(start(image, data=tmp_path, data_key="guarded")) as (_, client):
        first = run(client, "open('/data/results', 'rb').read(10)")
        assert first.error is not None
        assert "'guarded' stays closed" in first.text
        assert run(client, "6 * 7").result == "42"
    # Another key.
    keyring.create("other", guard="gramine-direct")
    with kernel(start(image, data=tmp_path, data_key="other")) as (_, client):
        assert run(client, "open('/data/results', 'rb').read(10)").error is not None


def test_an_image_can_encrypt_the_notebooks_directory(
    gramine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.broker import Keyring, MemoryStore
    from sealbook.image.build import Recipe, build
    from sealbook.jupyter.embedded import embedded_broker

    keyring = Keyring(MemoryStore())
    monkeypatch.setattr(embedded_broker(), "keyring", keyring)
    name = start(build(Recipe(work="encrypted"), tmp_path / "image"), data_key="study")
    keyring.create("study", guard="gramine-direct")
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    with kernel(name, cwd=str(notebooks)) as (_, client):
        assert run(client, f"open('results', 'wb').write({MARKER!r} * 100)").error is None
    assert MARKER not in (notebooks / "results").read_bytes()
    with kernel(name, cwd=str(notebooks)) as (_, client):
        assert run(client, "open('results', 'rb').read(10)").result == repr(MARKER[:10])


def test_a_key_that_asks_for_evidence_is_not_released_to_it(
    client: BlockingKernelClient, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.broker import Keyring, MemoryStore
    from sealbook.jupyter.embedded import embedded_broker

    keyring = Keyring(MemoryStore())
    keyring.create("guarded", guard=policy_file.stem)
    keyring.create("open", guard="none")
    monkeypatch.setattr(embedded_broker(), "keyring", keyring)
    for key in ("guarded", "open"):
        error = run(client, f"import sealbook; sealbook.seal('text', 'x.sealed', key='{key}')").error or ""
        assert "not attested" in error, error
