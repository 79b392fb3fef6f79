"""Real servers for a test run, started before Django reads its settings (hence a plugin and no conftest).

One PostgreSQL and two Valkeys serve the whole run; every xdist worker has a database and a Redis database
number of its own. DATABASE_URL, REDIS_URL and CELERY_BROKER_URL in the environment replace them.
"""

import atexit
import os
import shutil
import stat
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

PREFIX = "shargain-test-"
SWEEP_AFTER_SECONDS = 600
# Speed for data that nobody keeps.
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


def _start() -> None:
    if "DATABASE_URL" in os.environ and "REDIS_URL" in os.environ:
        return
    from shargain.demo.servers import Postgres, Valkey

    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.chmod(0o711)
    stack = ExitStack()
    atexit.register(stack.close)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    postgres = stack.enter_context(Postgres(folder / "postgres", settings=POSTGRES_SETTINGS))
    quotas = stack.enter_context(Valkey(folder / "quotas", persistent=False))
    broker = stack.enter_context(Valkey(folder / "broker", persistent=False))
    os.environ["DATABASE_URL"] = postgres.url
    os.environ["REDIS_URL"] = quotas.url
    os.environ["CELERY_BROKER_URL"] = broker.url


def _sweep() -> None:
    """Remove what runs left that were killed: old folders of ours whose servers are gone."""
    from shargain.demo.folders import ServerError, locked

    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, ServerError):
            seen = folder.lstat()
            is_old = time.time() - seen.st_mtime > SWEEP_AFTER_SECONDS
            if not is_old or seen.st_uid != os.getuid() or not stat.S_ISDIR(seen.st_mode):
                continue
            with ExitStack() as locks:
                for server in folder.iterdir():
                    locks.enter_context(locked(server))
                shutil.rmtree(folder)


def _take_own_redis_database(worker: str) -> None:
    server = os.environ["REDIS_URL"].rpartition("/")[0]
    os.environ["REDIS_URL"] = f"{server}/{int(worker.removeprefix('gw')) + 1}"


# A slow moment of a busy machine must not look like an outage; tests of outages set their own.
os.environ.setdefault("QUOTA_TIMEOUT_SECONDS", "5")
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _take_own_redis_database(worker)
else:
    _start()
