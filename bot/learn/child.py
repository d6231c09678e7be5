"""Starts a command that must not be in anybody's way: `python child.py PARENT MEGABYTES COMMAND…`.

A program of its own, because what it sets between fork and exec must not happen in a process with threads.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

NICE = 15
"""A thirtieth of what others get where the processor is short, but more than nothing."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, megabytes, *command = sys.argv[1:]
    _end_with(int(parent))
    os.nice(NICE)
    with contextlib.suppress(OSError):  # Linux; when memory ends, this ends first
        Path("/proc/self/oom_score_adj").write_text("1000")
    if int(megabytes):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (int(megabytes) << 20,) * 2)
    os.execv(command[0], command)  # noqa: S606, the bot's own command


def _end_with(parent: int) -> None:
    """Die when the bot does, where the system can be asked for it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            sys.exit(1)


if __name__ == "__main__":
    main()
