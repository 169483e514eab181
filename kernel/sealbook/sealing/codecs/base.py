"""What a codec is: it recognises objects, turns one into a payload, and reads a payload back."""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import MissingDependencyError, RefusedError, SealbookError


class ContentError(RefusedError):
    """A sealed file is authentic, but its content is not what its codec can read safely."""


@dataclass(frozen=True)
class Payload:
    """An object that was checked and is ready to be written.

    Attributes
    ----------
    write
        Writes the bytes, front to back, to a file that need not be seekable.
    metadata
        What the reader has to know before the first byte. It stands in the sealed file's
        header, authenticated but **public**: nothing of the object's content belongs here.
    """

    write: Callable[[BinaryIO], None]
    metadata: dict[str, Any] = field(default_factory=dict)


class Codec(ABC):
    """One kind of object that can be sealed.

    Sealing has two steps so that nothing is written of an object that is then refused:
    :meth:`prepare` checks everything, the payload's ``write`` only writes.
    """

    #: Stands in the header of sealed files; never changes.
    name: ClassVar[str]
    #: What it holds, plural, for the sentence that refuses everything else.
    holds: ClassVar[str]

    @abstractmethod
    def can_seal(self, obj: Any) -> bool:
        """Return whether `obj` is of this codec's kind; loads no library to find out."""

    @abstractmethod
    def prepare(self, obj: Any) -> Payload:
        """Check that `obj` would come back as it is.

        Raises
        ------
        InputError
            It would not; the sentence says which part and what to do.
        """

    @abstractmethod
    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:
        """Read an object from a seekable file whose every byte is authenticated before it is returned.

        Authentic means that a holder of the key wrote it, not that it is harmless: the
        reader runs no code from the file and bounds what it allocates.

        Raises
        ------
        ContentError
            The content is not what this codec writes.
        """

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever a library raises about malformed content into one :class:`ContentError`."""
        try:
            yield
        except (SealbookError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise ContentError(
                f"The sealed file is authentic but holds no readable '{self.name}' content "
                f"({type(error).__name__}); ask whoever sealed it to seal it again."
            ) from error


def loaded(module: str) -> ModuleType | None:
    """Return `module` if the process imported it already.

    An object of a library that was never imported cannot exist, so recognising objects
    needs no import.
    """
    return sys.modules.get(module)


def need(module: str, *, extra: str) -> Any:
    """Import an optional library.

    Raises
    ------
    MissingDependencyError
        With the extra that installs it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingDependencyError(
            f"The package '{module}' is needed for this and is not installed; "
            f"run `pip install 'sealbook[{extra}]'`."
        ) from None
