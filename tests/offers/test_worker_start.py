"""A worker does not start where limits would not hold."""

import os
import subprocess
import sys


def test_a_worker_on_a_database_without_the_ledger_ends_at_once() -> None:
    # The server's own database, in which no migration has ever run.
    command = [sys.executable, "-m", "celery", "-A", "shargain.celery", "worker", "--pool=solo"]
    worker = subprocess.run(
        command, env=os.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert worker.returncode == 1
    assert "The worker does not start" in worker.stderr
    assert "ready." not in worker.stderr
