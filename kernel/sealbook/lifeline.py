"""A child that ends when its parent does, however that ends: the kernel of the machine sees to it.

Nothing that a process does in the end (a handler, a message) happens when it is killed with SIGKILL;
this does.
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends; stays so when it becomes another program by exec.

    To be called in the child, right after the fork, by a parent of one thread: what counts is the thread
    that forked.

    Parameters
    ----------
    parent
        The parent's number, from before the fork.

    Raises
    ------
    OSError
        The system does not do it.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)  # it had ended already


_libc = ctypes.CDLL(None, use_errno=True)
