"""Child processes that cannot outlive us, each with a log file of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

GUARDIAN = Path(__file__).with_name("guardian.py")
GRACE_SECONDS = 10.0
GUARDIAN_SECONDS = 15.0
TAIL_BYTES = 8192
TAIL_LINES = 15


class ProcessError(Exception):
    """A child process did not start or did not stay; the text holds the end of its log."""


class Process:
    """One child process and all that it starts, under a guardian (see `guardian.py`).

    Nothing of it survives us, not even when we are killed with SIGKILL. It may be started again
    after it has ended; its log then begins anew.

    Args:
        name: what to call it in errors.
        command: the program and its arguments; nothing secret, for `ps` shows them.
        log: file for its output; the previous run's is kept beside it, as `.old`.
        env: its whole environment; None means ours.
        user: account to run as, for root; None means ours.
        stop_signal: what asks it to end.
        grace: seconds it has to do so, before SIGKILL.
        inherit: file descriptors that it and its children keep open.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = GRACE_SECONDS,
        inherit: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._cwd = cwd
        self._env = env
        self._user = user
        self._stop_signal = stop_signal
        self._grace = grace
        self._inherit = tuple(inherit)
        self._guardian: subprocess.Popen[bytes] | None = None
        self._stop_requested = False
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """Pid of the command itself, not of its guardian.

        Raises:
            ProcessError: it is not running.
        """
        if self._pid is None or not self.is_running:
            raise ProcessError(f"{self.name} is not running.")
        return self._pid

    @property
    def is_running(self) -> bool:
        """Whether the command, or something that it left behind, is there."""
        return self._guardian is not None and self._guardian.poll() is None

    @property
    def died(self) -> bool:
        """Whether it has ended without being asked to."""
        return self._guardian is not None and not self.is_running and not self._stop_requested

    @property
    def status(self) -> int | None:
        """Exit status, 128 and the signal's number after a signal; None while it runs."""
        return self._guardian.poll() if self._guardian is not None else None

    def start(self) -> None:
        """Start the command.

        Raises:
            ProcessError: it runs already, or the program cannot be executed.
            OSError: the log cannot be written.
        """
        if self.is_running:
            raise ProcessError(f"{self.name} is already running.")
        self._stop_requested = False
        read, write = os.pipe()
        with os.fdopen(read) as status:
            try:
                self._guardian = self._start_guardian(write)
            finally:
                os.close(write)
            line = status.readline()
        if not line:
            self._guardian.wait(GUARDIAN_SECONDS)
            raise ProcessError(f"{self.name} could not be started.\n{self.tail()}")
        self._pid = int(line)

    def _start_guardian(self, status: int) -> "subprocess.Popen[bytes]":
        orders = [os.getpid(), status, int(self._stop_signal), self._grace, self._user or ""]
        with suppress(FileNotFoundError):
            self.log.replace(self.log.with_suffix(".old"))
        self.log.touch(mode=0o600)
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARDIAN), *map(str, orders), *self.command],
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[status, *self._inherit],
                # Neither ctrl-C nor a kill of our process group may hit the guardian.
                start_new_session=True,
            )

    def request_stop(self) -> None:
        """Ask it to end, and return at once."""
        self._stop_requested = True
        if self._guardian is not None:
            self._guardian.terminate()

    def stop(self) -> None:
        """End it and all that it started; returns when they are gone. Harmless when they are."""
        self.request_stop()
        self._wait()

    def kill(self) -> None:
        """Kill it with SIGKILL, as a fault would; returns when all that it started is gone too."""
        if self._pid is not None and self.is_running:
            self._stop_requested = True
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> None:
        if self._guardian is None:
            return
        try:
            self._guardian.wait(self._grace + GUARDIAN_SECONDS)
        except subprocess.TimeoutExpired:
            # Its command then gets the stop signal from the kernel.
            self._guardian.kill()
            self._guardian.wait()

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                text = log.read(TAIL_BYTES).decode("utf-8", "replace")
        except OSError as error:
            return f"(its log cannot be read: {error})"
        return "\n".join(text.splitlines()[-TAIL_LINES:]) or "(its log is empty)"


class Supervisor:
    """The processes of one run, by name. As a context manager it stops them at the end.

    Args:
        logs: folder for `<name>.log`; made when it is missing.
        cwd: where the processes run.
        env: their whole environment.
    """

    def __init__(self, logs: Path, *, cwd: Path, env: Mapping[str, str]) -> None:
        self.processes: dict[str, Process] = {}
        self._logs = logs
        self._cwd = cwd
        self._env = dict(env)

    def start(self, name: str, command: Sequence[str], *, grace: float = GRACE_SECONDS) -> Process:
        """Start a process under a name that is still free.

        Raises:
            ProcessError: the name is taken, or the program cannot be executed.
            OSError: the log cannot be written.
        """
        if name in self.processes:
            raise ProcessError(f"A process named {name} was started already.")
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        process = Process(name, command, log=log, cwd=self._cwd, env=self._env, grace=grace)
        process.start()
        self.processes[name] = process
        return process

    def check(self) -> None:
        """Do nothing while all processes are as they should be.

        Raises:
            ProcessError: one ended although nobody asked it to; names it, with the end of its log.
        """
        for process in self.processes.values():
            if process.died:
                raise ProcessError(
                    f"{process.name} ended by itself with status {process.status}; the last lines"
                    f" of {process.log}:\n{process.tail()}"
                )

    def stop(self, *names: str) -> None:
        """Stop these processes, or all of them, at the same time; returns when they are gone."""
        chosen = [self.processes[name] for name in names] or list(self.processes.values())
        for process in chosen:
            process.request_stop()
        for process in chosen:
            process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
