import pytest

from quota_redis import scripts
from shargain.demo.bench.steps import STEPS


@pytest.mark.parametrize("name", STEPS)
def test_the_steps_follow_one_another_in_the_script_as_it_is(name: str) -> None:
    text = scripts.load(name).text
    ends = [text.rindex(mark) if mark else len(text) for _, mark in STEPS[name]]
    assert ends == sorted(set(ends))
