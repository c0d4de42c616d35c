"""Training killed at any moment and resumed ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lus_cli.cache.layout import Cache
from lus_cli.config import TrainConfig
from lus_cli.model.checkpoint import load_best, load_last
from lus_cli.progress import Result, silent
from lus_cli.steps import train
from tests.conftest import tiny
from tests.killing import Child

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="there is no SIGKILL here")

KILLS = 20
SEED = 6


@dataclass(frozen=True)
class Train:
    """`lus train` as a child runs it; pickles."""

    config: TrainConfig

    def __call__(self) -> Result:
        torch.set_num_threads(1)
        return train.run(self.config, silent)


def state_of(root: Path) -> str:
    """How far a run had come when it was killed."""
    run = Cache(root).run("killed") if (root / "runs" / "killed").is_dir() else None
    if run is None:
        return "not begun"
    state = load_last(run.last)
    return "no epoch" if state is None else f"epoch {len(state['epochs'])}"


def test_killed_at_random_moments_and_resumed_is_bit_equal(prepared: Path, tmp_path: Path) -> None:
    """SIGKILL and Ctrl-C in turns; a run that ends meanwhile is compared, and another one begun."""
    for name in ("videos.h5", "split.json"):
        shutil.copy(prepared / name, tmp_path / name)
    config = tiny(tmp_path, epochs=4, run="whole", dropout=0.2, flip=True, average=0.9)
    whole_child = Child(Train(config))
    assert isinstance(whole_child.end(), int)
    seconds = whole_child.seconds
    whole = Cache(tmp_path).run("whole")
    config = dataclasses.replace(config, run="killed")
    killed, moments, phases = Cache(tmp_path).new_run("killed"), random.Random(SEED), Counter[str]()
    kills = ended = 0
    while kills < KILLS or not ended:
        going_on = killed.root.is_dir()
        child = Child(Train(dataclasses.replace(config, resume=going_on)))
        if kills < KILLS:
            time.sleep(moments.uniform(0, 0.6 * seconds))
            how = signal.SIGKILL if kills % 2 else signal.SIGINT
            if child.kill(how):
                kills += 1
                phase = state_of(tmp_path)
                if phases[phase]:
                    seconds *= 1.15  # it does not get on: the machine has more to do by now
                phases[phase] += 1
                continue
            seconds = min(seconds, child.seconds)  # or less
        else:
            assert isinstance(child.end(), int)
        ended += 1
        assert_equal_runs(Path(whole.root), Path(killed.root))
        shutil.rmtree(killed.root)
    assert len(phases) >= 4, phases  # they hit different stages


def assert_equal_runs(one: Path, two: Path) -> None:
    assert (one / "epochs.csv").read_bytes() == (two / "epochs.csv").read_bytes()
    last = [load_last(root / "last.pt") for root in (one, two)]
    best = [load_best(root / "best.safetensors")[0].state_dict() for root in (one, two)]
    assert last[0] is not None
    assert last[1] is not None
    for weights in ([state["model"] for state in last if state], best):
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
