"""Sound files of every kind that lus reads, small: what the cases are made from."""

from __future__ import annotations

import io
import multiprocessing
import struct
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)
from safetensors.torch import save_file

from lus_cli.config import PhantomConfig, PrepareConfig, TrainConfig
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.steps import phantom, prepare, train
from lus_cli.study.video_writing import write_video
from tests.conftest import PAPER
from tests.study.test_sources import (
    COLUMNS,
    ROWS,
    coloured,
    cumulative,
    pixels,
    region,
    stored_as,
    write_compressed,
    write_dicom,
    write_mat,
    write_mat_video,
)

# The smallest network there is, but for its input.
TINY = {"backbone": "squeezenet1_1", "weights": "none", "feature_stride": 4, "hidden": 4}
TINY |= {"attention_channels": [4, 2], "epochs": 1, "frames_per_video": 2, "batch_size": 4}
LONGEST = 18  # frames: more than a chunk


@dataclass(frozen=True)
class Seeds:
    """Where the sound files lie."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def exams(self) -> Path:
        return self.root / "exams"

    @property
    def run(self) -> Path:
        return self.cache / "runs" / "tiny"

    def files(self, kind: str) -> list[Path]:
        return sorted((self.root / kind).iterdir())


def make_seeds(root: Path) -> Seeds:
    """Makes them all under `root`: some seconds, most of them for a run of one epoch."""
    seeds = Seeds(root)
    make_study(seeds)
    for kind in ("jpeg", "png", "picture", "video", "dicom", "mat", "scores", "weights"):
        (root / kind).mkdir()
    make_images(root)
    make_videos(root / "video")
    make_dicom(root / "dicom")
    make_mat(root / "mat", root / "scores")
    (root / "bombs").mkdir()
    maker = multiprocessing.get_context("fork").Process(target=make_bombs, args=(root / "bombs",))
    maker.start()  # what it holds meanwhile is not to be counted
    maker.join()
    torch.manual_seed(0)
    state = {"0.weight": torch.rand(4, 3, 3, 3), "0.bias": torch.rand(4)}
    torch.save(state, root / "weights" / "w.pth")
    torch.save(
        {"state_dict": state}, root / "weights" / "old.pth", _use_new_zipfile_serialization=False
    )
    save_file(state, root / "weights" / "w.safetensors")
    return seeds


def make_study(seeds: Seeds) -> None:
    """A phantom, its cache, and a run on it."""
    config = PhantomConfig(
        root=seeds.exams, patients=6, videos=12, size=32, max_frames=LONGEST, workers=1
    )
    phantom.run(config, silent)
    settings = PrepareConfig(exams=seeds.exams, cache=seeds.cache, size=32, workers=1, folds=2)
    prepare.run(settings, silent)
    values = {**TINY, "name": "tiny", "run": "tiny", "device": "cpu", "threads": 1}
    train.run(build(TrainConfig, PAPER | {**values, "cache": seeds.cache}), silent)


def make_images(root: Path) -> None:
    gray = Image.fromarray(pixels(length=1)[0])
    colour = Image.fromarray(coloured(pixels(length=1))[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    gray.save(root / "jpeg" / "gray.jpg")
    colour.save(root / "jpeg" / "colour.jpg", comment=b"a comment", icc_profile=bytes(200))
    colour.save(root / "jpeg" / "progressive.jpg", progressive=True)
    colour.save(root / "jpeg" / "turned.jpg", exif=exif)
    colour.convert("CMYK").save(root / "jpeg" / "cmyk.jpg")
    gray.save(root / "png" / "gray.png")
    colour.save(root / "png" / "colour.png", exif=exif)
    colour.convert("P").save(root / "png" / "palette.png", transparency=0)
    colour.convert("RGBA").save(root / "png" / "alpha.png", icc_profile=bytes(200))
    gray.convert("1").save(root / "png" / "bits.png")
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    wide.save(root / "png" / "sixteen.png")
    gray.save(root / "picture" / "gray.tif")
    colour.save(root / "picture" / "lzw.tif", compression="tiff_lzw", exif=exif)
    colour.convert("CMYK").save(root / "picture" / "deflate.tif", compression="tiff_deflate")
    wide.save(root / "picture" / "sixteen.tif")
    gray.save(root / "picture" / "gray.bmp")
    colour.convert("RGBA").save(root / "picture" / "alpha.bmp")
    colour.save(root / "picture" / "lossy.webp", quality=90)
    colour.convert("RGBA").save(root / "picture" / "lossless.webp", lossless=True)


def make_videos(folder: Path) -> None:
    for suffix in ("mp4", "gif"):
        write_video(folder / f"v.{suffix}", iter(coloured(pixels())), 25)
    import av

    kinds = (
        *(("v.avi", "mjpeg"), ("v.mkv", "libx264"), ("v.mov", "mpeg4"), ("v.mpg", "mpeg2video")),
        *(("v.ts", "libx264"), ("v.wmv", "wmv2"), ("v.webm", "libvpx-vp9"), ("v.flv", "flv")),
        *(("v.ogv", "libvpx"), ("v.apng", "apng"), ("v.mxf", "mpeg2video")),
    )
    for name, codec in kinds:
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = COLUMNS, ROWS
            stream.pix_fmt = {"mjpeg": "yuvj420p", "apng": "rgb24"}.get(codec, "yuv420p")
            for frame in coloured(pixels()):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            container.mux(stream.encode(None))


def make_dicom(folder: Path) -> None:
    box = [region(0, 10, COLUMNS - 1, ROWS - 1)]
    write_dicom(folder / "gray.dcm", pixels(), SequenceOfUltrasoundRegions=box)
    write_compressed(folder / "jpeg.dcm", pixels(), JPEGBaseline8Bit, "MONOCHROME2")
    for meaning in ("RGB", "YBR_FULL_422", "16 bits, signed", "PALETTE COLOR"):
        values, tags = stored_as(meaning, pixels())
        interpretation = "MONOCHROME2" if "bits" in meaning else meaning
        write_dicom(folder / f"{meaning.split()[0]}.dcm", values, interpretation, **tags)
    import pydicom

    header = pydicom.dcmread(folder / "gray.dcm")
    header.compress(RLELossless)
    header.save_as(folder / "rle.dcm")
    write_compressed(folder / "j2k.dcm", coloured(pixels()), JPEG2000Lossless, "YBR_RCT")
    header = pydicom.dcmread(folder / "PALETTE.dcm")
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        delattr(header, f"{colour}PaletteColorLookupTableData")
        ramp = struct.pack("<9H", 0, 1, 0, 1, 127, 32896, 1, 128, 65535)
        setattr(header, f"Segmented{colour}PaletteColorLookupTableData", ramp)
    header.save_as(folder / "segmented.dcm")
    header = pydicom.dcmread(folder / "gray.dcm")
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(folder / "deflated.dcm", implicit_vr=False, little_endian=True)
    header = pydicom.dcmread(folder / "jpeg.dcm")
    header.file_meta.TransferSyntaxUID = MPEG4HP41
    header.PixelData = encapsulate([(folder.parent / "video" / "v.mp4").read_bytes()])
    header.save_as(folder / "film.dcm")


def make_bombs(folder: Path) -> None:
    """Files that say, or unpack to, far more than they hold."""
    content = (folder.parent / "mat" / "v5.mat").read_bytes()
    sides, larger = (np.array([ROWS, COLUMNS, 3, last], "<i4").tobytes() for last in (5, 10**6))
    (folder / "v5.mat").write_bytes(content.replace(sides, larger))
    with h5py.File(folder / "v7.3.mat", "w") as file:  # a chunk is read whole
        shape = (100, 3, 1000, 1000)
        made = file.create_dataset("frames", shape, "u1", chunks=shape, compression=1)
        made[0] = 0


def make_mat(videos: Path, scores: Path) -> None:
    for version in ("5", "5 compressed", "7.3"):
        name = version.replace(" ", "-")
        write_mat_video(videos / f"v{name}.mat", coloured(pixels()), version)
        write_mat(scores / f"s{name}.mat", "Score_matrix", cumulative([0, 1, 3, 2, 0]), version)
    file = io.BytesIO()
    scipy.io.savemat(file, {"frames": np.zeros((2, 2), np.uint8)}, format="4")
    (videos / "v4.mat").write_bytes(file.getvalue())
