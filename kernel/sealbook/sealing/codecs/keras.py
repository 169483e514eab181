"""Keras models in Keras's own ``.keras`` archive, reopened in safe mode only."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload, loaded, need

#: A file system in memory. Keras passes the files of some layers (vocabularies) through a
#: temporary directory, and plain text must not reach a disk.
_MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - a directory of our own in it

#: Gramine has no /dev/shm; there the manifest of every image has /tmp in the enclave's memory.
_GRAMINE, _GRAMINE_MEMORY_FILES = Path("/dev/attestation/keys"), Path("/tmp")  # noqa: S108

_scratch_lock = threading.Lock()


class KerasCodec(Codec):
    """``keras.Model``: architecture, weights, compile state and optimiser state."""

    name: ClassVar[str] = "keras"
    holds: ClassVar[str] = "Keras models"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        keras = loaded("keras")
        return keras is not None and hasattr(keras, "Model") and isinstance(obj, keras.Model)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        keras = need("keras", extra="tensorflow")
        if not obj.built:
            raise InputError(
                "The Keras model has no weights yet; give it an Input layer or call it once before sealing."
            )
        try:
            config = keras.saving.serialize_keras_object(obj)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise InputError(f"Keras cannot save this model ({str(error).partition(chr(10))[0]}).") from None
        if _has_lambda(config):
            raise InputError(
                "The Keras model has a Lambda layer with a Python function, which could only be reopened by "
                "running code from the file; make it a layer class of its own, registered with "
                "@keras.saving.register_keras_serializable()."
            )
        unregistered = _unregistered(config)
        if unregistered is not None:
            raise InputError(
                f"The Keras model has a class of your own, {unregistered}, that Keras could not find when "
                "the model is reopened; decorate it with @keras.saving.register_keras_serializable()."
            )

        def write(file: BinaryIO) -> None:
            # The public save_model takes paths only. saving_lib takes files, but wants to seek in them.
            archive = io.BytesIO()
            with _scratch():
                _saving_lib().save_model(obj, archive)
            content = archive.getbuffer()
            while content:
                content = content[file.write(content) :]

        return Payload(write)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        need("keras", extra="tensorflow")
        with self.reading():
            # In memory: a file with a name would make Keras unpack weights beside it when memory is short.
            archive = io.BytesIO(file.read())
            with zipfile.ZipFile(archive) as members:
                if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                    raise ValueError("compressed members, which Keras never writes")
            with _scratch():
                return _saving_lib().load_model(archive, safe_mode=True)


def _saving_lib() -> Any:
    # Not public, but what keras.saving calls; a test fails when a new Keras moves it.
    return need("keras.src.saving.saving_lib", extra="tensorflow")


def _has_lambda(config: Any) -> bool:
    """Tell whether a serialised model holds marshalled Python code."""
    if isinstance(config, Mapping):
        return config.get("class_name") == "__lambda__" or any(map(_has_lambda, config.values()))
    return isinstance(config, list | tuple) and any(map(_has_lambda, config))


def _unregistered(config: Any) -> str | None:
    """Return the name of a class in a serialised model that is neither Keras's nor registered with it."""
    if isinstance(config, Mapping):
        name = config.get("registered_name")
        # Registered names have a package, "Custom>Name"; plain functions are found by their name.
        if isinstance(name, str) and ">" not in name and config.get("class_name") != "function":
            return name
        config = list(config.values())
    if isinstance(config, list | tuple):
        return next((found for item in config if (found := _unregistered(item)) is not None), None)
    return None


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """Let Keras's temporary directories lie in memory; Keras asks :mod:`tempfile` and cannot be told."""
    memory = _GRAMINE_MEMORY_FILES if _GRAMINE.is_dir() else _MEMORY_FILES
    if not os.access(memory, os.W_OK):
        raise InputError(
            f"Sealing Keras models needs a memory file system at {memory}; mount one (tmpfs) there."
        )
    with _scratch_lock, tempfile.TemporaryDirectory(dir=memory, prefix="sealbook-") as directory:
        before, tempfile.tempdir = tempfile.tempdir, directory
        try:
            yield
        finally:
            tempfile.tempdir = before
