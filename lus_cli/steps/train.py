"""lus train: trains a model and keeps the epoch with the lowest validation loss.

Under torchrun every process runs this step; only the first one writes files and messages.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from lus_cli.cache.layout import Cache
from lus_cli.cache.split import read_split
from lus_cli.cache.video_cache import VideoCache
from lus_cli.config import TrainConfig
from lus_cli.files import check_writable
from lus_cli.model.devices import choose_device, set_threads
from lus_cli.model.ranks import Ranks, connected
from lus_cli.progress import Progress, Result
from lus_cli.recipes.recipe import recipe_of
from lus_cli.training.resuming import resumed
from lus_cli.training.run_names import reserved
from lus_cli.training.setting import Setting
from lus_cli.training.training import dry_run, train


def run(config: TrainConfig, progress: Progress) -> Result:
    """Trains a new run or resumes an interrupted one."""
    cache, ranks = Cache(config.cache), Ranks.of_environment()
    set_threads(config.threads, ranks)
    device = choose_device(config.device, ranks)
    with connected(ranks, device), contextlib.ExitStack() as reservation:
        if config.resume:
            run = cache.run(config.run)
            check_writable(run.root)
            changes = {name: getattr(config, name) for name in config.given}
            setting = resumed(run, device, ranks, changes)
        else:
            videos = VideoCache(cache.videos)
            split, edited = read_split(cache.split, videos.patients)
            if edited and split.drawn_by:  # recorded in the run folder
                split = replace(split, drawn_by=split.drawn_by | {"edited": True})
            if ranks.first and not config.dry_run:
                run = reservation.enter_context(reserved(cache, config.run, config.name))
            else:
                run = cache.new_run(config.run or f"{config.name}-1")
            run = ranks.agreed(run)
            setting = Setting(recipe_of(config), run, videos, split, device, ranks)
        return dry_run(setting) if config.dry_run else train(setting, progress)
