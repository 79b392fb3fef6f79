"""A run to be killed: owns a PostgreSQL, a Valkey and a process with stubborn children.

Prints `ready` when all are up, and then does nothing.
"""

import os
import sys
import time
from pathlib import Path

from shargain.demo.servers import Postgres, Valkey
from shargain.demo.supervisor import Supervisor

# A child in the group, and one that left it for a session of its own; both ignore SIGTERM.
STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for leave in (lambda: None, os.setsid):
    if os.fork() == 0:
        leave()
        time.sleep(600)
print("up", flush=True)
time.sleep(600)
"""


def main() -> None:
    home = Path(sys.argv[1])
    postgres = Postgres(home / "postgres", settings={"fsync": "off"})
    valkey = Valkey(home / "valkey", persistent=True)
    postgres.start()
    valkey.start()
    supervisor = Supervisor(home / "logs", cwd=home, env=dict(os.environ))
    stubborn = supervisor.start("stubborn", [sys.executable, "-c", STUBBORN], grace=0.5)
    while "up" not in stubborn.tail():
        time.sleep(0.02)
    print("ready", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
