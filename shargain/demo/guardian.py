"""Runs one command and sees to it that nothing of the command outlives its owner.

Started as a script, in a session of its own, by `supervisor.Process`:

    python -I -S guardian.py OWNER STATUS SIGNAL GRACE USER COMMAND...

OWNER   pid of the process that must be alive for the command to run
STATUS  file descriptor that the command's pid is written to, as one line
SIGNAL  number of the signal that asks the command to end
GRACE   seconds it has for that, before SIGKILL
USER    name of the account to run as, or an empty string

The command ends when the owner dies, however it dies, or when the guardian gets SIGTERM. What the
command leaves behind is killed. The exit status is the command's, or 128 and the signal's number.
Linux only.
"""

import ctypes
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

OWNER_CHECK_SECONDS = 0.2
SWEEP_SECONDS = 10.0
CANNOT_RUN = 127


class Order(NamedTuple):
    """What the guardian was asked to do."""

    owner: int
    status: int
    stop_signal: int
    grace: float
    user: str
    command: list[str]


class Alarm:
    """Ends a wait when a signal arrives, and remembers whether it asked for the end."""

    def __init__(self) -> None:
        self.stop_requested = False
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: a handled signal is back to its default in the command.
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            self.stop_requested = True

    def wait(self, seconds: float) -> None:
        """Return at the next signal, or after so many seconds."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 1024)


def main(arguments: list[str]) -> int:
    """Run the command to its end and return its exit status."""
    owner, status, stop_signal, grace, user, *command = arguments
    order = Order(int(owner), int(status), int(stop_signal), float(grace), user, command)
    alarm = Alarm()
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    # Orphans of the command become children of the guardian, so they can be found and killed.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(order.status, False)
    try:
        child = _spawn(order, partial(prctl, PR_SET_PDEATHSIG, order.stop_signal))
    except (OSError, KeyError) as error:
        print(f"{order.command[0]} cannot be run: {error}", file=sys.stderr)
        return CANNOT_RUN
    os.write(order.status, b"%d\n" % child.pid)
    os.close(order.status)
    _watch(child, order, alarm)
    _sweep()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _spawn(order: Order, die_with_guardian: "partial[int]") -> "subprocess.Popen[bytes]":
    account = pwd.getpwnam(order.user) if order.user else None
    return subprocess.Popen(
        order.command,
        process_group=0,
        # What the owner passed on to the guardian is meant for the command.
        close_fds=False,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        # The last resort: it works even when the guardian itself is killed. There is one thread.
        preexec_fn=die_with_guardian,  # noqa: PLW1509
    )


def _watch(child: "subprocess.Popen[bytes]", order: Order, alarm: Alarm) -> None:
    """Return when the command has ended, by itself or because it had to."""
    while child.poll() is None and not alarm.stop_requested and os.getppid() == order.owner:
        _reap_orphans(child.pid)
        alarm.wait(OWNER_CHECK_SECONDS)
    if child.poll() is None:
        child.send_signal(order.stop_signal)
    deadline = time.monotonic() + order.grace
    while child.poll() is None and time.monotonic() < deadline:
        alarm.wait(OWNER_CHECK_SECONDS)
    if child.poll() is None:
        child.kill()
        child.wait()


def _reap_orphans(child: int) -> None:
    """Collect the exit statuses of adopted orphans, and leave the command's for Popen."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while (found := os.waitid(os.P_ALL, 0, options)) and found.si_pid != child:
        os.waitpid(found.si_pid, 0)


def _sweep() -> None:
    """Kill what the command left behind, in whatever session or group it is."""
    deadline = time.monotonic() + SWEEP_SECONDS
    while (remaining := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in remaining:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _descendants(ancestor: int) -> list[int]:
    parents = _parents()
    found = [ancestor]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found[1:]


def _parents() -> dict[int, int]:
    """The parent of every process there is, by pid."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The command's name stands in brackets and may itself contain some.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
    return parents


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
