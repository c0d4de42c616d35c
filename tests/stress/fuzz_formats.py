"""Ways to spoil a file that know its format: whole in form, and wrong in what it says.

Byte changes seldom get past a checksum or a header; these do.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pydicom
import scipy.io
import torch
from pydicom.encaps import encapsulate

from tests.stress.fuzz_mutations import EXTREME, hostile_text, hostile_value, spoiled, with_hostile

ZEROS = 100_000_000  # bytes of a bomb: a hundred kilobytes compressed


def jpeg(content: bytes, random_: random.Random) -> bytes:
    """Other sizes, segments that lie about their length, scans without end."""
    changed = bytearray(content)
    frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    scan = content.find(b"\xff\xda")
    match random_.randrange(5):
        case 0:
            size = random_.choice((0, 1, 7, 4000, 8000, 65500))
            changed[frame + 5 : frame + 7] = struct.pack(">H", size)
            if random_.random() < 0.7:
                changed[frame + 7 : frame + 9] = struct.pack(">H", random_.choice((0, 1, size)))
        case 1:
            changed[frame + 9] = random_.choice((0, 1, 2, 3, 4, 255))
        case 2:  # each scan costs a pass over all pixels
            changed[frame + 5 : frame + 9] = struct.pack(">HH", 7900, 7900)
            changed[scan:-2] = content[scan:-2] * random_.choice((1, 100, 3000))
        case 3:
            marker = bytes((0xFF, random_.choice((0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE))))
            body = random_.choice(
                (b"Exif\0\0", b"Adobe", b"ICC_PROFILE\0\1\1", b"")
            ) + random_.randbytes(40)
            length = random_.choice((len(body) + 2, 0, 1, 2, 65535))
            changed[2:2] = marker + struct.pack(">H", length) + body
        case _:
            tags = struct.pack(
                "<2sHIHHHII", b"II", 42, 8, 1, 0x0112, 3, 1, random_.choice((0, 6, 9, 2**31))
            )
            body = b"Exif\0\0" + tags + struct.pack("<I", random_.choice((0, 8, 2**32 - 1)))
            changed[2:2] = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    return bytes(changed)


def png(content: bytes, random_: random.Random) -> bytes:
    """Chunks changed, their checksums made right again; a bomb among them."""
    chunks, at = [], 8
    while at < len(content):
        [size] = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    name, head = chunks[0]
    match random_.randrange(5):
        case 0:
            sides = [random_.choice((0, 1, 4000, 8000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
            chunks[0] = name, struct.pack(">II", *sides) + head[8:]
        case 1:
            chunks[0] = (
                name,
                head[:8] + bytes(random_.choice((0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5)),
            )
        case 2:
            bomb = zlib.compress(bytes(ZEROS), 1)
            kind = random_.choice((b"IDAT", b"zTXt", b"iCCP", b"iTXt"))
            chunks.insert(1, (kind, bomb if kind == b"IDAT" else b"name\0\0" + bomb))
        case 3:
            which = random_.randrange(len(chunks))
            name, body = chunks[which]
            chunks[which] = name, spoiled(body, random_)
        case _:
            random_.shuffle(chunks)
    return content[:8] + b"".join(map(png_chunk, chunks))


def picture(content: bytes, random_: random.Random) -> bytes:
    """Numbers of a TIFF's directory, or of the head of a BMP or WebP, changed: sizes, places, bits,
    compressions and the place of the next picture among them."""
    changed = bytearray(content)
    [begin] = struct.unpack("<I", content[4:8]) if content.startswith(b"II*") else (0,)
    end = min(begin + 200, len(content)) - 4
    for _ in range(random_.choice((1, 1, 2, 4))):
        place = random_.randrange(begin, end) if end > begin else 0
        number = random_.choice((0, 1, 2, 8, 16, 32, 4000, 8000, 34925, 2**31 - 1, 2**32 - 1))
        if random_.random() < 0.5:
            changed[place : place + 4] = struct.pack("<I", number)
        else:
            changed[place : place + 2] = struct.pack("<H", number & 0xFFFF)
    return bytes(changed)


def png_chunk(chunk: tuple[bytes, bytes]) -> bytes:
    name, body = chunk
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def video(content: bytes, random_: random.Random) -> bytes:
    """A number inside a box, chunk or element set to an extreme, or the box made another."""
    names = (
        b"mvhd",
        b"tkhd",
        b"mdhd",
        b"stsd",
        b"stts",
        b"stsz",
        b"stsc",
        b"stco",
        b"elst",
        b"avcC",
    )
    names += (
        b"mdat",
        b"moov",
        b"avih",
        b"strh",
        b"strf",
        b"idx1",
        b"movi",
        b"GIF8",
        b"\x2c\0",
        b"\x21\xf9",
    )
    names += (
        b"\x1f\x43\xb6\x75",
        b"\x2a\xd7\xb1",
        b"\x44\x89",
        b"\x16\x54\xae\x6b",
        b"\xb0",
        b"\xba",
    )
    changed = bytearray(content)
    there = [name for name in names if name in content]
    at = content.find(random_.choice(there))
    if random_.random() < 0.15:
        changed[at : at + 4] = random_.choice((b"free", b"moov", b"trak", b"uuid", b"\0\0\0\0"))
    else:
        code = random_.choice("BHIIQ")
        where = max(0, at + random_.choice((-4, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36)))
        value = random_.choice(EXTREME) % 2 ** (8 * struct.calcsize(f">{code}"))
        piece = struct.pack(f"{'<' if content[:4] == b'RIFF' else '>'}{code}", value)
        changed[where : where + len(piece)] = piece
    return bytes(changed)


def dicom(content: bytes, random_: random.Random) -> bytes:
    """Tags set to what cannot be, the pixels left as they are, or the other way round."""
    header = pydicom.dcmread(io.BytesIO(content))
    numbers = (0, 1, 2, 3, 7, 16, 255, 8000, 65535)
    changes: list[tuple[str, Callable[[], Any]]] = [
        *(
            (name, lambda: random_.choice(numbers))
            for name in ("Rows", "Columns", "SamplesPerPixel")
        ),
        *(
            (name, lambda: random_.choice(numbers))
            for name in ("BitsAllocated", "BitsStored", "HighBit")
        ),
        ("PixelRepresentation", lambda: random_.choice(numbers)),
        ("PlanarConfiguration", lambda: random_.choice(numbers)),
        (
            "NumberOfFrames",
            lambda: random_.choice(("0", "-1", "4", "6", "99999", "2147483647", "")),
        ),
        (
            "PhotometricInterpretation",
            lambda: random_.choice(("RGB", "PALETTE COLOR", "YBR_ICT", "YBR_FULL", "", "x")),
        ),
        ("ExtendedOffsetTable", lambda: random_.randbytes(40)),
        (
            "RedPaletteColorLookupTableDescriptor",
            lambda: [random_.choice(numbers) for _ in range(3)],
        ),
        (
            "GreenPaletteColorLookupTableData",
            lambda: random_.randbytes(random_.choice((0, 3, 512))),
        ),
    ]
    for name, value in random_.sample(changes, random_.choice((1, 1, 2))):
        setattr(header, name, value())
    if random_.random() < 0.3:
        uid = random_.choice(
            (
                "1.2.840.10008.1.2",
                "1.2.840.10008.1.2.2",
                "1.2.840.10008.1.2.5",
                "1.2.840.10008.1.2.4.50",
            )
        )
        uid = random_.choice((uid, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.90", "1.2.3", ""))
        header.file_meta.TransferSyntaxUID = uid
    if random_.random() < 0.2:
        pieces = [
            random_.randbytes(random_.choice((2, 64, 5000)))
            for _ in range(random_.choice((1, 5, 9)))
        ]
        header.PixelData = encapsulate(pieces) if random_.random() < 0.5 else b"".join(pieces)
    file = io.BytesIO()
    try:
        header.save_as(file, enforce_file_format=False, implicit_vr=False, little_endian=True)
    except Exception:  # pydicom will not write everything: then bytes are changed
        return spoiled(content, random_)
    written = file.getvalue()
    return written if written[128:132] == b"DICM" else bytes(128) + b"DICM" + written


def mat(name: str) -> Callable[[bytes, random.Random], bytes]:
    """Arrays of other shapes, types and kinds under the right name, in both versions."""

    def change(content: bytes, random_: random.Random) -> bytes:
        arrays: tuple[Any, ...] = (
            *(np.zeros((4, 5, 3, 2), kind) for kind in ("f8", "i2", "c16", "bool")),
            *(
                np.zeros(shape, np.uint8)
                for shape in ((0, 0), (4, 5, 3, 0), (4, 5, 2, 3), (3, 4, 5, 3, 2), (1, 1, 3), (3,))
            ),
            *(np.full((3, 5), value) for value in (np.nan, np.inf, 2.0, -1.0, 1e300)),
            *(
                np.array(["text"]),
                np.array([[1, "a"]], object),
                {"a": 1},
                scipy.sparse.eye(3),
                [],
                "x" * 70_000,
            ),
            *(np.zeros((3, 5)), np.ones((3, 4)), np.ones((3, 10**6), np.uint8), np.zeros((3, 0))),
        )
        array = random_.choice(arrays)
        file = io.BytesIO()
        if b"MATLAB 7.3" not in content[:200]:
            scipy.io.savemat(file, {name: array}, do_compression=random_.random() < 0.5)
            return file.getvalue()
        with h5py.File(file, "w", userblock_size=512) as made:
            put_in(made, name, array, random_)
        return content[:512] + file.getvalue()[512:]

    return change


def put_in(file: h5py.File, name: str, array: Any, random_: random.Random) -> None:
    """A dataset as it should not be: elsewhere, far too large on paper, or of another kind."""
    match random_.randrange(8):
        case 0:
            file[name] = h5py.ExternalLink("/etc/passwd", "/")
        case 1:
            file[name] = h5py.SoftLink(f"/{name}")
        case 2:
            file.create_dataset(name, (50, 3, 64, 48), "u1", external=[("/etc/passwd", 0, 460_800)])
        case 3:
            layout = h5py.VirtualLayout((5, 3, 64, 48), "u1")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (5, 3, 64, 48))
            file.create_virtual_dataset(name, layout)
        case 4:  # far larger than the file: what nobody wrote is zeros
            shape = random_.choice(((40, 3, 1000, 1000), (90_000, 3, 8000, 8000), (10**9, 3)))
            file.create_dataset(name, shape, "u1", chunks=tuple(min(side, 64) for side in shape))
        case 5:
            file.create_group(name)
        case 6:
            file[name] = file.ref
        case _:
            try:
                file[name] = np.asarray(array)
            except TypeError:
                file[name] = np.array(["text"], object)


def cache(content: bytes, random_: random.Random) -> bytes:
    """videos.h5 with a dataset or an attribute gone, of another shape or type, or of other values."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as videos:
        if random_.random() < 0.3:
            name = random_.choice(list(videos.attrs))
            texts = (hostile_text(random_), json.dumps(str(hostile_value(random_))), -1, 3, [1, 2])
            value = random_.choice(texts)
            if random_.random() < 0.3:
                del videos.attrs[name]
            elif isinstance(value, str) and "\0" in value:
                videos.attrs[name] = value.encode()
            else:
                videos.attrs[name] = value
        else:
            name = random_.choice(list(videos))
            dataset = videos[name]
            match random_.randrange(5):
                case 0:
                    del videos[name]
                case 1 if name != "frames":
                    values = dataset[:]
                    values.flat[0] = (
                        random_.choice((1, 2, 3, 0, 100)) if values.dtype != object else "other"
                    )
                    dataset[:] = values
                case 2:
                    del videos[name]
                    videos[name] = random_.choice(
                        (np.zeros(3), np.zeros((2, 2), "i4"), 7, "text", np.zeros(0))
                    )
                case 3 if name != "frames":
                    values = dataset[:][:-1]
                    del videos[name]
                    videos[name] = values
                case _:
                    videos.create_group("more")
    return file.getvalue()


def torch_zip(content: bytes, random_: random.Random) -> bytes:
    """A PyTorch file with other values in it, compressed, or with a pickle that does things."""
    file = io.BytesIO()
    match random_.randrange(6):
        case 0:
            return pickle.dumps(Executing(), protocol=random_.choice((0, 2, 4)))
        case 1:
            torch.save({"format_version": 2, "state": Executing()}, file)
        case 2:
            torch.save(hostile_tensors(random_), file)
        case 3:
            with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
                for name in old.namelist():
                    body = old.read(name)
                    if name.endswith("/data/0") and random_.random() < 0.7:
                        body = random_.choice((body[:-1], b"", bytes(ZEROS)))
                    elif name.endswith("data.pkl") and random_.random() < 0.5:
                        body = spoiled(body, random_)
                    new.writestr(
                        name, body, random_.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
                    )
        case _:
            state = torch.load(io.BytesIO(content), weights_only=True)
            torch.save(with_hostile(state, random_), file)
    return file.getvalue()


class Executing:
    """Touches a file when it is unpickled by whoever executes pickles."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('executed', 'w')",)


def hostile_tensors(random_: random.Random) -> Any:
    """State dicts that fit nothing, some of them far larger than their file."""
    tiny = torch.zeros(1)
    return random_.choice(
        (
            *({}, [], None, 1, tiny, {"w": 1}, {1: tiny}, {"0.weight": tiny}, {"state_dict": []}),
            {"0.weight": tiny.expand(10**9), "0.bias": torch.zeros(4)},
            {"0.weight": tiny.expand(4, 3, 3, 3), "0.bias": torch.full((4,), torch.nan)},
            {"0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.complex64), "0.bias": torch.zeros(4)},
            {"0.weight": torch.eye(3).to_sparse(), "0.bias": torch.zeros(4)},
            {"0.weight": torch.zeros(4, 3, 3, 3, device="meta"), "0.bias": torch.zeros(4)},
            {"0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.int8), "0.bias": torch.zeros(4)},
        )
    )


def safetensors(content: bytes, random_: random.Random) -> bytes:
    """A header that lies, over the tensors as they are."""
    [size] = struct.unpack("<Q", content[:8])
    header, body = content[8 : 8 + size], content[8 + size :]
    match random_.randrange(4):
        case 0:
            return struct.pack("<Q", random_.choice((*EXTREME, 10**8))) + header + body
        case 1:
            text = random_.choice(
                (b"{}", b"[]", b"", b"{" * 90_000, b'{"__metadata__":{"lus":"{}"}}')
            )
        case 2:
            entries = json.loads(header)
            name = random_.choice([key for key in entries if key != "__metadata__"])
            field = random_.choice(("shape", "dtype", "data_offsets"))
            entries[name][field] = random_.choice(
                (
                    [0, 2**63],
                    [2**40, 2**40],
                    [-1],
                    [],
                    "F64",
                    "BOOL",
                    [4, 0],
                    hostile_value(random_),
                )
            )
            text = json.dumps(entries).encode()
        case _:
            text = json.dumps(with_hostile(json.loads(header), random_)).encode()
    return struct.pack("<Q", len(text)) + text + body


def masks(content: bytes, random_: random.Random) -> bytes:
    """Any HDF5 file with one of its objects gone or another."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as made:
        names: list[str] = []
        made.visit(names.append)
        name = random_.choice(names)
        del made[name]
        if random_.random() < 0.7:
            made[name] = random_.choice((np.zeros(3), 1, "text", np.zeros((0, 2))))
    return file.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
