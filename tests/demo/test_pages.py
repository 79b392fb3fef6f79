"""The measurement of the admin's pages asks for every page, on data whose accounts agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.demo.test_run import ROOT, SERVERS

SMALL = ("--targets", "30", "--offers", "300", "--runs", "1")


def test_measures_every_page_and_leaves_nothing(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shargain.demo.pages", "--json", "--state", str(home), *SMALL],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in SERVERS},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == {"targets": 30, "quotas": 60, "offers": 300}
    assert len(report["pages"]) == 16
    assert all(page["queries"] <= 15 for page in report["pages"])
    assert not (home / "pages" / "postgres" / "data").exists()
