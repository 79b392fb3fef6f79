import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that `nobody` can reach, unlike tmp_path, so that root needs no second one."""
    folder = Path(tempfile.mkdtemp(prefix="shargain test "))
    folder.chmod(0o711)
    yield folder
    folder.chmod(0o711)
    shutil.rmtree(folder)
