"""The keys of the driver's JVM: it asks the kernel, which has them from its own broker, over its own channel.

What a driver seals or opens is therefore decided as for every cell: by the policy that guards the key, for
this kernel, and with an entry in the audit log.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from sealbook.errors import InputError, SealbookError
from sealbook.sealing import SealingKey

if TYPE_CHECKING:
    from sealbook.sealing import KeyProvider

_PURPOSES: Final = ("seal", "unseal")
_MAX_SENTENCE: Final = 500


class KeyCallback:
    """Answers the JVM's questions for keys; py4j calls :meth:`key` as a method of a Java interface.

    Parameters
    ----------
    keys
        Returns where the keys come from now. Asked each time: a kernel's session can begin anew.
    """

    def __init__(self, keys: Callable[[], KeyProvider]) -> None:
        self._keys = keys

    def key(self, name: Any, version: Any, purpose: Any) -> str:
        """Return ``version:base64`` of a key, or ``error:`` and one sentence.

        Parameters
        ----------
        version
            0 for the one that seals now.
        purpose
            ``seal`` or ``unseal``.

        It never raises: py4j would hand the whole traceback to the JVM, which logs it.
        """
        try:
            key = self._find(name, version, purpose)
            return f"{key.version}:{base64.b64encode(key.secret).decode()}"
        except SealbookError as error:
            return f"error:{_one_line(str(error))}"
        except Exception as error:
            # Not the exception's text: it may quote what must not leave.
            return f"error:The kernel could not ask for the key ({type(error).__name__}); restart it."

    def _find(self, name: Any, version: Any, purpose: Any) -> SealingKey:
        if not isinstance(name, str) or type(version) is not int or version < 0 or purpose not in _PURPOSES:
            raise InputError("The JVM asked for a key in a way that this kernel does not know.")
        if version == 0:
            return self._keys().current(name)
        return self._keys().get(name, version)

    class Java:
        """Read by py4j."""

        implements = ("sealbook.keys.KeyCallback",)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_SENTENCE]
