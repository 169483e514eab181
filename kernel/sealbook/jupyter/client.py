"""The client's end of the five channels: contexts and client classes that speak CURVE by themselves.

jupyter_client, jupyter_server, nbclient and papermill make their sockets from
``KernelManager.context`` and from the context of ``KernelManager.client_factory``'s instances.
libzmq contexts carry default socket options; so giving both a context with the CURVE options
set makes every connection anyone opens to this kernel an encrypted one to the verified key,
with nothing patched.
"""

from __future__ import annotations

from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.client import KernelClient
from jupyter_client.manager import KernelManager

from sealbook.jupyter.curve import CurveKeys, client_context


class _SealedClientMixin:
    """Mixed into whatever client class the manager makes (blocking, asyncio, threaded)."""

    _keys: CurveKeys
    _server_key: bytes

    def __init__(self, **kwargs: Any) -> None:
        # The class's own default context says whether it wants plain or asyncio sockets.
        kind = type(self)._context_kind()
        kwargs["context"] = client_context(kind, self._keys, self._server_key)
        super().__init__(**kwargs)

    @classmethod
    def _context_kind(cls) -> type[zmq.Context[Any]]:
        trait = cls.class_traits()["context"]  # type: ignore[attr-defined]
        trait._resolve_classes()
        return zmq.asyncio.Context if issubclass(trait.klass, zmq.asyncio.Context) else zmq.Context


def connect_manager(manager: KernelManager, keys: CurveKeys, server_key: bytes) -> None:
    """Let `manager`, and every client made from it from now on, connect to this kernel only.

    Called by the provisioner once the kernel's evidence is verified, at every (re)start.
    """
    manager.context = client_context(type(manager.context), keys, server_key)
    base = next(cls for cls in manager.client_factory.__mro__ if not issubclass(cls, _SealedClientMixin))
    factory: type[KernelClient] = type(
        f"Sealed{base.__name__}", (_SealedClientMixin, base), {"_keys": keys, "_server_key": server_key}
    )
    manager.client_factory = factory
    # The second way to a client, ConnectionFileMixin.blocking_client, must not be a way around.
    manager.blocking_class = type(
        "SealedBlockingKernelClient",
        (_SealedClientMixin, BlockingKernelClient),
        {"_keys": keys, "_server_key": server_key},
    )
