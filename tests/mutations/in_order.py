"""A pytest plugin for mutants: the tests in the order that was asked for, none longer than it may take."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import Phase, settings

TEST_SECONDS = 90


class TestTooLong(Exception):  # noqa: N818  a name says what is wrong
    """A test takes so long that it would not end."""

    __test__ = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-order", default="", help="beginnings of test ids, separated by commas")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After pytest-django, which would put the cheap tests last."""
    order = config.getoption("--in-order").split(",")

    def place(item: pytest.Item) -> int:
        return next(
            (i for i, first in enumerate(order) if item.nodeid.startswith(first)), len(order)
        )

    items.sort(key=place)


def pytest_configure() -> None:
    # That an example fails is enough: nobody reads the smallest one, and looking for it takes minutes.
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("mutants")


def pytest_sessionstart() -> None:
    import quota_redis

    # The tree under test is this folder's, or nothing that comes out of it means anything.
    assert Path(quota_redis.__file__).is_relative_to(Path.cwd())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(TEST_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)


def _give_up(_: int, __: FrameType | None) -> None:
    raise TestTooLong(f"the test did not end within {TEST_SECONDS} seconds")
