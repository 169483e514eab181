"""Every way that PySpark has to a context or session leads to the one of the present scale.

PySpark decides in a few functions where code runs, and offers no hook for any of them: what counts is what
the code says (``.master("local[*]")``, ``SparkContext("local")``), or an environment variable. Code should
run where `%scale` says instead, unchanged. So those functions are replaced, all of them here and nowhere
else, in a sealbook kernel only and when their module is imported:

===============================================  ======================================================
``pyspark.core.context.launch_gateway``          the JVM is the kernel's own
``SparkContext.__new__``, ``__init__``           a second context is the first one, and no error
``SparkContext._do_init``                        the master is the scale's, protective settings are added
``SparkSession.Builder.getOrCreate``, ``create`` ... and checked also for a session that exists
``SparkSession.Builder._validate_startup_urls``  Spark Connect is refused, in one sentence
``pyspark.sql.connect``                          cannot be imported: the same
``pyspark.core.rdd``                             in Gramine, see :mod:`sealbook.spark.python_functions`
``pyspark.errors.exceptions.captured``           see :mod:`sealbook.spark.sentences`
``DataStreamWriter.start``, ``toTable``          see :mod:`sealbook.spark.streams`
``xgboost.spark.core``                           see :mod:`sealbook.spark.xgboost_guard`
===============================================  ======================================================

A subclass would not do: PySpark refers to ``SparkContext`` by name in dozens of places, and users' code too.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

from sealbook.errors import RefusedError
from sealbook.spark import present, python_functions, sentences, streams, xgboost_guard

#: Environment variables that make PySpark a client of a Spark Connect server.
_CONNECT_VARIABLES: Final = ("SPARK_REMOTE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_LOCAL_REMOTE")


class ConnectRefusedError(RefusedError, ImportError):
    """Spark Connect was asked for. Also an ImportError, for code that only looks whether it is there."""

    def __init__(self) -> None:
        super().__init__(
            "Spark Connect is not available in a sealbook kernel, because the server behind it proves "
            "nothing: leave out `remote`, SPARK_REMOTE and spark.api.mode; `%scale` says where code runs."
        )


def install() -> None:
    """Replace the functions in modules that are loaded, and in the others when they are imported."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    for name, hook in _HOOKS.items():
        if name in sys.modules:
            hook(sys.modules[name])
    sys.meta_path.insert(0, _Finder())


# -- pyspark.core.context ----------------------------------------------------------------------


def _redirect_contexts(module: ModuleType) -> None:
    context = module.SparkContext
    stock_init, stock_do_init = context.__init__, context._do_init

    def is_alive(found: Any) -> bool:
        return found is not None and bool(getattr(found, "_jsc", None))

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        # Code that says SparkContext("local[1]") means "the Spark of this notebook".
        present.notice_end()
        active = context._active_spark_context
        return active if type(active) is cls and is_alive(active) else object.__new__(cls)

    @functools.wraps(stock_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        with context._lock:
            if self is context._active_spark_context and is_alive(self):
                return
            present.current().scale.require_master()
            # Starts the JVM, or another one if it has ended since.
            _use(module, present.current().gateway(kwargs.get("conf")))
            stock_init(self, *args, **kwargs)

    @functools.wraps(stock_do_init)
    def do_init(
        self: Any,
        master: str | None,
        appName: str | None,  # noqa: N803 - PySpark's names
        sparkHome: str | None,  # noqa: N803
        pyFiles: Any,  # noqa: N803
        environment: Any,
        batchSize: int,  # noqa: N803
        serializer: Any,
        conf: Any,
        *rest: Any,
    ) -> None:
        user = dict(conf.getAll()) if conf is not None else {}
        user |= {f"spark.executorEnv.{name}": value for name, value in (environment or {}).items()}
        user |= {"spark.app.name": appName} if appName else {}
        user |= {"spark.master": master} if master else {}
        merged = module.SparkConf(_jvm=context._jvm)
        for name, value in present.current().configuration(user).items():
            merged.set(name, value)
        with _signal_handler_kept():
            stock_do_init(self, None, None, None, pyFiles, environment, batchSize, serializer, merged, *rest)
        for listener in present.on_context:
            listener(self)

    context.__new__ = new
    context.__init__ = init
    context._do_init = do_init
    module.launch_gateway = _launch_gateway  # type: ignore[attr-defined]


def _use(module: ModuleType, gateway: Any) -> None:
    if module.SparkContext._gateway is not gateway:
        module.SparkContext._gateway = gateway
        module.SparkContext._jvm = gateway.jvm


def _launch_gateway(conf: Any = None, popen_kwargs: Any = None) -> Any:
    """Return the kernel's own JVM, for whoever asks for a gateway without a context."""
    return present.current().gateway(conf)


class _signal_handler_kept:  # noqa: N801 - a context manager
    """PySpark's handler of SIGINT asks the JVM over the connection that waits for the job, and so waits too.

    The kernel cancels jobs itself (:mod:`sealbook.spark.progress`), over another.
    """

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        self._handler = signal.getsignal(signal.SIGINT) if self._main else None

    def __exit__(self, *exception: object) -> None:
        if self._main and self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)


# -- pyspark.java_gateway ----------------------------------------------------------------------


def _redirect_gateways(module: ModuleType) -> None:
    module.launch_gateway = _launch_gateway  # type: ignore[attr-defined]


# -- pyspark.sql.session -----------------------------------------------------------------------


def _redirect_sessions(module: ModuleType) -> None:
    builder = module.SparkSession.Builder

    def checked(stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @functools.wraps(stock)
        def get(self: Any) -> Any:
            _refuse_connect(self._options)
            present.notice_end()
            options = {name: str(value) for name, value in self._options.items()}
            present.current().configuration(options)  # raises
            context = sys.modules["pyspark.core.context"].SparkContext._active_spark_context
            if getattr(context, "_jsc", None):
                # The context is there. A session would remember another master and show it.
                self._options.pop("spark.master", None)
            return stock(self)

        return get

    def refuse(self: Any) -> None:
        _refuse_connect(self._options)

    builder.getOrCreate = checked(builder.getOrCreate)
    builder.create = checked(builder.create)
    builder._validate_startup_urls = refuse


def _refuse_connect(options: Any) -> None:
    named = any(name in os.environ for name in _CONNECT_VARIABLES)
    modes = (str(options.get("spark.api.mode", "")), os.environ.get("SPARK_API_MODE", ""))
    if named or "spark.remote" in options or any(mode.lower() == "connect" for mode in modes):
        raise ConnectRefusedError


# -- when a module is imported -----------------------------------------------------------------

_HOOKS: Final[dict[str, Callable[[ModuleType], None]]] = {
    "pyspark.core.context": _redirect_contexts,
    "pyspark.errors.exceptions.captured": sentences.install,
    "pyspark.java_gateway": _redirect_gateways,
    "pyspark.sql.session": _redirect_sessions,
    "pyspark.core.rdd": python_functions.guard,
    "pyspark.sql.streaming.readwriter": streams.install,
    "xgboost.spark.core": xgboost_guard.guard,
}
_REFUSED: Final = "pyspark.sql.connect"


class _Finder(importlib.abc.MetaPathFinder):
    """Sees which of the modules is imported, and has its own loader's work followed by ours."""

    def __init__(self) -> None:
        self._looking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == _REFUSED:
            raise ConnectRefusedError
        if fullname not in _HOOKS or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _HOOKS[fullname])
        return spec


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader would, and then calls the hook."""

    def __init__(self, loader: importlib.abc.Loader, hook: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for tracebacks

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """See :class:`importlib.abc.Loader`."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See :class:`importlib.abc.Loader`."""
        self._loader.exec_module(module)
        self._hook(module)
