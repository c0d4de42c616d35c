"""videos-README.md of a cache, for those who find videos.h5 and do not know lus."""

from __future__ import annotations

from lus_cli.cache.layout import Cache
from lus_cli.files import write_text

TEXT = """\
# videos.h5 and its folder

`lus prepare` wrote `videos.h5` and can make it again from the study. This folder may hold frames and
ids of patients.

| file | content |
|---|---|
| `videos.h5` | the frames of all videos, with their scores and ids |
| `split.json` | which patient is in train, validation or test |
| `figures/` | figures and tables of the study |
| `runs/`, `crossvals/` | trained models |

## Reading videos.h5

Its frames are compressed with Zstandard. Without the filter of the package hdf5plugin, reading them
fails with "can't open directory". After `import hdf5plugin`, h5py reads them:

```python
import h5py
import hdf5plugin  # pip install hdf5plugin

with h5py.File("videos.h5") as file:
    frames = file["frames"][0, : file["length"][0]]  # (frame, row, column[, RGB]) uint8
    print(file["patient"][0].decode(), file["score"][0], frames.shape)  # score -1: unlabelled
```

As a PyTorch dataset, with lus:

```python
import lus_cli
from torch.utils.data import DataLoader

dataset = lus_cli.open_cache(".", "train", frames_per_video=32)
loader = DataLoader(dataset, batch_size=4, shuffle=True, collate_fn=lus_cli.pad_videos)
frames, lengths, scores = next(iter(loader))  # (video, frame, row, column) uint8, (video,), (video,)
```
"""


def write_readme(cache: Cache) -> None:
    """Writes the file if it does not already hold this text."""
    path = cache.readme
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != TEXT:
        write_text(path, TEXT)
