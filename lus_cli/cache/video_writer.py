"""Writes videos.h5, laid out as video_cache describes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import lus_cli
from lus_cli.cache.chunks import CHUNK_FRAMES, ZSTD_LEVEL, FrameFormat, StoredVideo
from lus_cli.cache.hdf5 import sealing, writing
from lus_cli.cache.tables import (
    TABLES,
    NumbersWriter,
    as_texts,
    labels_of,
    tables_checksum,
    write_table,
)
from lus_cli.cache.video_cache import FORMAT_VERSION, READ_WITH, Entry
from lus_cli.files import fingerprint, replacing
from lus_cli.processes import read_ahead


def write_video_cache(
    path: Path,
    entries: Sequence[Entry],
    video_of: Callable[[Entry], StoredVideo],
    frame_format: FrameFormat,
    provenance: dict[str, Any],
    written: Callable[[], None] = lambda: None,
) -> None:
    """Writes videos.h5 atomically; keeps the chunks of two videos in memory.

    `video_of` returns the compressed video of an entry; `provenance` is stored as JSON. `written` is
    called before the new file replaces the old one, so that the caller can close the old one: Windows
    cannot replace an open file.
    """
    shape = frame_format.shape
    with (
        replacing(path) as part,
        sealing(part),
        writing(part, libver="v110") as (file, disk),
    ):
        frames = create_frames(file, len(entries), shape)
        numbers = NumbersWriter(file, len(entries))
        lengths, checksums, source_shapes, notes = [], [], [], []
        longest = 0
        for index, video in enumerate(read_ahead(video_of, entries)):
            if video.length > longest:  # asking the file for its shape each time takes 0.1 ms
                longest = video.length
                frames.resize(longest, axis=1)
            for position, chunk in enumerate(video.chunks):
                offset = (index, position * CHUNK_FRAMES, *(0 for _ in shape))
                frames.id.write_direct_chunk(offset, chunk)
            numbers.add(video.frame_numbers)
            lengths.append(video.length)
            checksums.append(video.checksum)
            source_shapes.append(video.source_shape)
            notes.append(json.dumps(video.notes))
            disk.raise_error()
        numbers.close()
        write_entries(file, entries)
        write_table(file, "length", np.array(lengths, np.int32))
        write_table(file, "source_shape", np.array(source_shapes, np.int32).reshape(-1, 2))
        write_table(file, "checksum", as_texts(checksums))
        write_table(file, "notes", as_texts(notes))
        file.attrs["read_with"] = frames.attrs["read_with"] = READ_WITH
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["tool_version"] = lus_cli.__version__
        file.attrs["frame_format"] = json.dumps(asdict(frame_format))
        file.attrs["provenance"] = json.dumps(provenance)
        file.attrs["fingerprint"] = fingerprint(
            [asdict(frame_format), [[*e.id, c] for e, c in zip(entries, checksums, strict=True)]]
        )
        file.attrs["labels"] = labels_of((e.id for e in entries), (e.score for e in entries))
        file.attrs[TABLES] = tables_checksum(file)
        file.flush()
        written()


def create_frames(file: h5py.File, videos: int, shape: tuple[int, ...]) -> h5py.Dataset:
    """Creates the dataset `frames` for a number of videos, with length 0; `shape` is of one frame."""
    import hdf5plugin  # registers the Zstandard filter that the file declares

    frames = file.create_dataset(
        "frames",
        shape=(videos, 0, *shape),
        maxshape=(videos, None, *shape),
        chunks=(1, CHUNK_FRAMES, *shape),
        dtype=np.uint8,
        **hdf5plugin.Zstd(clevel=ZSTD_LEVEL),
    )
    axes = ("video", "frame", "row", "column", "channel")
    for axis in range(2 + len(shape)):
        frames.dims[axis].label = axes[axis]
    return frames


def write_entries(file: h5py.File, entries: Sequence[Entry]) -> None:
    """Writes the tables of what was known of each video before it was decoded."""
    for name in ("score", "a_lines", "b_lines"):
        write_table(file, name, np.array([getattr(entry, name) for entry in entries], np.int8))
    for name in ("patient", "exam", "area"):
        write_table(file, name, as_texts([getattr(entry.id, name) for entry in entries]))
    for name in ("source_key", "source_kind"):
        write_table(file, name, as_texts([getattr(entry, name) for entry in entries]))
    write_table(file, "source_path", as_texts([e.source_path or str(e.id) for e in entries]))
    if any(entry.group for entry in entries):
        write_table(file, "group", as_texts([entry.group for entry in entries]))
