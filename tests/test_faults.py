"""A short part of tests/stress/faults.py: evaluate, attention and predict, killed and let through.

The other commands are killed in test_crash.py and test_train_crash.py.
"""

from __future__ import annotations

import errno
import os
import random

import pytest

from tests.killing import Child, Ended
from tests.stress.faults import compared, try_kills
from tests.stress.faults_scenarios import Scenario, make_scenarios
from tests.stress.faults_single import FailingWrites, one_line, stood, two_at_once

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there is no SIGKILL here")

KILLS = 4  # of each
SEED = 7
NAMES = ("evaluate again", "attention", "predict again")


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    made = make_scenarios(tmp_path_factory.mktemp("faults"), set(NAMES))
    return {scenario.name: scenario for scenario in made}


@pytest.mark.parametrize("name", NAMES)
def test_killed_it_leaves_the_old_or_the_new_and_ends_the_same(
    scenarios: dict[str, Scenario], name: str
) -> None:
    scenario = scenarios[name]
    tally = try_kills(scenario, KILLS, SEED, scenario.start.parent.parent)
    assert tally.kills.total() == KILLS
    assert tally.findings == []


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line_and_what_there_was_stands(
    scenarios: dict[str, Scenario], name: str
) -> None:
    scenario = scenarios[name]
    here = scenario.fresh(scenario.start.parent.parent / "here")
    command = scenario.command(here, FailingWrites(here, 1, errno.ENOSPC))
    outcome = Child(command).end()
    assert isinstance(outcome, Ended)
    assert one_line(outcome, command.said) == []
    assert "cannot be written (No space left on device)" in " ".join(command.said.split())
    assert stood(here, scenario) == []


def test_of_two_predictions_at_once_none_is_half_done(scenarios: dict[str, Scenario]) -> None:
    scenario = scenarios["predict again"]
    here = scenario.start.parent.parent / "here"
    assert two_at_once(scenario, here, compared, random.Random(SEED)) == []
