"""Notebooks in batch: what papermill needs to run them in attested kernels and keep them sealed.

Both modules are loaded by papermill through entry points: :mod:`.engine` for
``papermill --engine sealbook``, :mod:`.io` for paths that begin with ``sealed://``.
"""
