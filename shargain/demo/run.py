"""Runs the whole service on this machine, shows it at work, and judges at the end whether it was exact.

    python -m shargain.demo.run [--for SECONDS] [--fresh] [--state FOLDER]

Servers named by DATABASE_URL, REDIS_URL and CELERY_BROKER_URL are used as they are; the others are
started here and keep their data in the state folder. The exit status is 1 where anything disagrees.
"""

import argparse
import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shargain.demo.folders import ServerError, locked, write_private
from shargain.demo.servers import Postgres, Server, Valkey
from shargain.demo.supervisor import ProcessError
from shargain.stopping import PatientStop, uninterrupted

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_SECONDS = 7 * 24 * 3600
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; without `seconds` the run goes on until it is stopped."""

    seconds: float | None
    fresh: bool
    state: Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status."""
    options = _parse(arguments)
    stop = PatientStop()
    stop.listen()
    try:
        with _servers(options) as servers:
            _say("Loading ...")
            with uninterrupted():
                import django

                django.setup()
                from shargain.demo.session import Session

            return 0 if Session(options.state, servers, stop).run(options.seconds) else 1
    except (ServerError, ProcessError) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"The run cannot go on: {error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("Ended at once, without a verdict; the data are kept.", file=sys.stderr)
        return INTERRUPTED
    return 1


def _parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="scripts/run", description="Run the whole service here.")
    parser.add_argument(
        "--for", dest="seconds", type=float, metavar="SECONDS", help="without it: until ctrl-C"
    )
    parser.add_argument("--fresh", action="store_true", help="throw earlier data away")
    parser.add_argument(
        "--state", type=Path, default=ROOT / ".state", metavar="FOLDER", help="where data are kept"
    )
    options = parser.parse_args(arguments)
    if options.seconds is not None and not 1 <= options.seconds <= MAX_SECONDS:
        parser.error(f"--for is {options.seconds:g}: give seconds from 1 to {MAX_SECONDS}")
    return Options(options.seconds, options.fresh, options.state.absolute())


@contextmanager
def _servers(options: Options) -> Iterator[list[Server]]:
    """Start the servers that the environment does not name, and name them in it."""
    options.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(options.state))
        ours = _ours(options.state)
        if options.fresh:
            _erase(options.state, ours)
        for variable, server in ours.items():
            _say(f"Starting {server.name} for {variable} ...")
            os.environ[variable] = stack.enter_context(server).url
        os.environ["DJANGO_SECRET_KEY"] = _secret_key(options.state / "secret-key")
        os.environ["DJANGO_SETTINGS_MODULE"] = "shargain.settings"
        # A busy machine is slow now and then, which is no outage.
        os.environ.setdefault("QUOTA_TIMEOUT_SECONDS", "0.5")
        yield list(ours.values())


def _ours(state: Path) -> Mapping[str, Server]:
    servers: dict[str, Server] = {
        "DATABASE_URL": Postgres(state / "postgres"),
        "REDIS_URL": Valkey(state / "quotas", persistent=True),
        # Persistent as well: what was accepted is not lost when a run is killed.
        "CELERY_BROKER_URL": Valkey(state / "broker", persistent=True),
    }
    return {name: server for name, server in servers.items() if not os.environ.get(name)}


def _erase(state: Path, ours: Mapping[str, Server]) -> None:
    for variable in ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL"):
        if variable not in ours:
            raise ServerError(
                f"--fresh throws away what this command keeps itself, and {variable} names a"
                " server of yours: empty that one yourself, or leave out --fresh."
            )
    for server in ours.values():
        server.erase()
    for leftover in ("logs", "beat"):
        shutil.rmtree(state / leftover, ignore_errors=True)
    for leftover in ("figures.json", "limits.json"):
        (state / leftover).unlink(missing_ok=True)


def _secret_key(file: Path) -> str:
    """Kept from run to run, so that a login survives a restart of the web workers."""
    if not file.exists():
        write_private(file, secrets.token_urlsafe(50))
    return file.read_text(encoding="utf-8")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
