"""Containers of video files: which are supported, and whether the end of a file is missing.

Decoders conceal missing bytes, and FFmpeg takes the end of the file for the end of the video. The
length in bytes that a container states reveals a truncated file. The stated frames and seconds do
not, since many programs write them wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# FFmpeg determines the format by content; suffixes only tell which files are videos.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mj2"),
    *(".avi", ".divx", ".mkv", ".webm", ".gif", ".apng", ".flv", ".wmv", ".asf", ".ogv", ".ogm"),
    *(".mpeg", ".mpg", ".mpe", ".mpv", ".m1v", ".m2v", ".m2p", ".vob", ".vro", ".mod"),
    *(".ts", ".m2t", ".mts", ".m2ts", ".tod", ".trp", ".mxf", ".dv", ".dif", ".ivf", ".y4m"),
    *(".mjpeg", ".mjpg", ".h264", ".264", ".avc", ".hevc", ".h265", ".265"),
)
OTHER_SUFFIXES = (
    ".rm",
    ".rmvb",
    ".swf",
    ".flc",
    ".fli",
    ".wtv",
    ".bik",
    ".dav",
    ".nut",
    ".obu",
    ".m3u8",
)
# Names in FFmpeg. No others, since playlists and image lists can open other files and addresses.
DEMUXERS = ",".join(
    (
        *("mov", "avi", "matroska", "gif", "apng", "flv", "live_flv", "asf", "ogg"),
        *("mpeg", "mpegvideo", "mpegts", "mxf", "dv", "ivf", "yuv4mpegpipe"),
        *("mjpeg", "h264", "hevc", "m4v"),
    )
)
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
MP4_BOXES = (
    b"ftyp",
    b"moov",
    b"mdat",
    b"wide",
    b"free",
    b"skip",
    b"pnot",
)  # that a file starts with
STARTS = {  # of files, by the container's name in FFmpeg
    b"GIF8": "gif",
    b"\x89PNG": "apng",
    b"\x1a\x45\xdf\xa3": "matroska,webm",
    b"\x30\x26\xb2\x75": "asf",
    b"OggS": "ogg",
    b"FLV": "flv",
    b"\0\0\1\xba": "mpeg",
    b"\0\0\1": "mpegvideo",
    b"\0\0\0\1": "h264",
    b"\x06\x0e\x2b\x34": "mxf",
    b"G": "mpegts",
    b"DKIF": "ivf",
    b"YUV4MPEG2": "yuv4mpegpipe",
    b"\xff\xd8": "mjpeg",
    b"\x1f\x07\0": "dv",
}
LENGTH_UNKNOWN = (0, 0xFFFFFFFF)
SEGMENT, SIZE_UNKNOWN = 0x18538067, -1
AFTER_CLUSTERS = (0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770)  # cues, tags, files, chapters
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
TS_PACKET, M2TS_PACKET, TS_SYNC = 188, 192, 0x47
MXF_KEY, MXF_PARTITION = b"\x06\x0e\x2b\x34", b"\x02\x05\x01\x01\x0d\x01\x02\x01\x01"
MXF_LAST = (4, 17)  # a footer, and the index of all partitions after it
VIDEO_PES = range(0xE0, 0xF0)
OGG_FIRST, OGG_LAST = 2, 4  # flags of a stream's pages
OGG_VIDEO = (b"\x80theora", b"\x01video", b"OVP80", b"BBCD\0")  # starts of its first page


def container_of(path: Path) -> str:
    """The FFmpeg name of the container that a file's first bytes belong to; "" if it is unknown.

    Used for files that FFmpeg cannot open.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if start[4:8] in MP4_BOXES:
        return MP4
    if start[:4] == b"RIFF":
        return "avi"
    return next((name for first, name in STARTS.items() if start.startswith(first)), "")


def lacks_moov(path: Path) -> bool:
    """Whether an MP4 or MOV has no box `moov`, which recorders write last (ISO/IEC 14496-12, 8.2)."""
    with path.open("rb") as file:
        return b"moov" not in [kind for _, kind, _ in mp4_boxes(file, path.stat().st_size)]


def mp4_boxes(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Yields the first byte, the kind and the length of each box; the last may be incomplete.

    The kind is empty if not even a box's length and kind are complete. A length of 0 means up to
    the end of the file.
    """
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            yield at, b"", len(head)
            return
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        yield at, kind, length
        if length < 8:
            return
        at += length


def lacks_end(path: Path, container: str) -> bool:
    """Whether bytes with pictures are missing at the end of a file.

    container: its name in FFmpeg. Also False for a container that does not state its length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        return CUTS[container](file, size) if container in CUTS else False


def cut_gif(file: BinaryIO, _size: int) -> bool:
    """Whether a GIF lacks its trailer.

    Walks the blocks of GIF89a: header, extensions (0x21), images (0x2C), trailer (0x3B).
    """
    file.read(6)
    skip_color_table(file, file.read(7)[4:5])
    while (kind := file.read(1)) in (b"\x21", b"\x2c"):
        if kind == b"\x2c":
            skip_color_table(file, file.read(9)[8:9])
        file.seek(1, 1)  # the extension's label, or the image's code size
        while (size := file.read(1)) not in (b"", b"\x00"):
            file.seek(size[0], 1)
    return kind != b"\x3b"


def skip_color_table(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)


def cut_png(file: BinaryIO, size: int) -> bool:
    """Whether a PNG lacks its last chunk, IEND (PNG specification, section 11.2.5)."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        if head[4:] == b"IEND":
            return False
        file.seek(struct.unpack(">I", head[:4])[0] + 4, 1)
    return True


def riff_chunks(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name (for a list, that of the list), first byte and end of each chunk.

    Recorders write the length of a list last; after a crash it is 0 or all ones.
    """
    while start + 12 <= end:
        file.seek(start)
        name, length, inner = struct.unpack("<4sI4s", file.read(12))
        is_list = name in (b"RIFF", b"LIST")
        stop = end if is_list and length in LENGTH_UNKNOWN else start + 8 + length
        yield (inner if is_list else name), start + 12, stop
        start = stop + length % 2


def cut_avi(file: BinaryIO, size: int) -> bool:
    """Whether a list `movi`, in any RIFF chunk of a file, extends beyond its end."""
    for name, start, end in riff_chunks(file, 0, size):
        if name not in (b"AVI ", b"AVIX"):
            return False
        seen = False
        for inner, _, stop in riff_chunks(file, start, min(end, size)):
            seen = seen or inner == b"movi"
            if inner == b"movi" and stop > size:
                return True
        if end > size and not seen:
            return True
    return False


def ebml_number(file: BinaryIO, keep_mark: bool) -> int | None:
    """A variable-size integer (RFC 8794, section 4); SIZE_UNKNOWN, or None at the file's end."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return None
    value = int.from_bytes(first + rest)
    if keep_mark:
        return value
    value -= 1 << 7 * length
    return SIZE_UNKNOWN if value == (1 << 7 * length) - 1 else value


def cut_matroska(file: BinaryIO, size: int) -> bool:
    """Whether a segment of known size is too short, or one of unknown size ends within an element.

    False if only the elements after the clusters are missing.
    """
    end, last = size, 0
    while file.tell() < end:
        kind = ebml_number(file, keep_mark=True)
        length = ebml_number(file, keep_mark=False) if kind is not None else None
        if kind is None or length is None:
            return last not in AFTER_CLUSTERS
        if kind == SEGMENT:
            if length != SIZE_UNKNOWN:
                end = file.tell() + length
            continue
        if length == SIZE_UNKNOWN:
            continue  # the next elements are inside
        last = kind
        if file.tell() + length > size:
            return kind not in AFTER_CLUSTERS
        file.seek(length, 1)
    return file.tell() < end and last not in AFTER_CLUSTERS


def cut_asf(file: BinaryIO, size: int) -> bool:
    """Whether the data object (ASF specification, section 5) is longer than the file."""
    at = 0
    while at + 24 <= size:
        file.seek(at)
        kind, length = struct.unpack("<16sQ", file.read(24))
        if kind == ASF_DATA:
            return bool(at + length > size)
        if length < 24:
            return False
        at += length
    return True


def cut_ogg(file: BinaryIO, size: int) -> bool:
    """Whether a page (RFC 3533, section 6) extends beyond the file, or a video lacks its last page."""
    unfinished = set()
    while len(head := file.read(27)) == 27:
        if head[:4] != b"OggS":
            return False  # damaged: the decoder reports it
        flags, serial = head[5], head[14:18]
        lengths = file.read(head[26])
        after = file.tell() + sum(lengths)
        if len(lengths) < head[26] or after > size:
            return True
        if flags & OGG_FIRST and file.read(9).startswith(OGG_VIDEO):
            unfinished.add(serial)
        if flags & OGG_LAST:
            unfinished.discard(serial)
        file.seek(after)
    return bool(head or unfinished)


def cut_mpeg(file: BinaryIO, size: int) -> bool:
    """Whether a video packet of a program stream (ISO/IEC 13818-1, 2.5.3) extends beyond the file."""
    at = 0
    while len(head := file.read(14)) >= 6:
        if head[:3] != b"\0\0\1":
            return False
        if head[3] == 0xBA:  # a pack: 12 bytes, or 14 and stuffing
            at += 14 + (head[13] & 7) if len(head) == 14 and head[4] >> 6 == 1 else 12
        elif head[3] == 0xB9:
            at += 4
        else:
            at += 6 + struct.unpack(">H", head[4:6])[0]
            if at > size:
                return head[3] in VIDEO_PES
        file.seek(at)
    return False


def cut_mpegts(file: BinaryIO, size: int) -> bool:
    """Whether the last packet of a transport stream (ISO/IEC 13818-1, 2.4.3) is incomplete."""
    start = file.read(5 * M2TS_PACKET)
    for length, before in ((TS_PACKET, b""), (M2TS_PACKET, b"time")):
        if all(byte == TS_SYNC for byte in start[len(before) :: length][:4]):
            file.seek(size - size % length)
            rest = file.read(length)
            return bool(rest) and rest[len(before) :][:1] in (b"", bytes([TS_SYNC]))
    return False


def cut_flv(file: BinaryIO, size: int) -> bool:
    """Whether the last tag (Video File Format Specification 10.1, annex E) is incomplete."""
    header = file.read(9)
    at = struct.unpack(">I", header[5:])[0] + 4 if len(header) == 9 else size
    while at < size:
        file.seek(at)
        at += 11 + int.from_bytes(file.read(4)[1:]) + 4  # tag, content, and their size again
    return at > size


def cut_mxf(file: BinaryIO, size: int) -> bool:
    """Whether the last packet is incomplete, or the footer is missing (SMPTE 377-1)."""
    at, kind = 0, 0
    while at + 20 <= size:
        file.seek(at)
        head = file.read(25)
        if not head.startswith(MXF_KEY):
            return False
        kind = head[13] if head[4:13] == MXF_PARTITION else kind
        length, more = head[16], 0
        if length & 0x80:
            more = length & 0x7F
            length = int.from_bytes(head[17 : 17 + more])
        at += 17 + more + length
    return at != size or kind not in MXF_LAST


def cut_mp4(file: BinaryIO, size: int) -> bool:
    """Whether a file ends within a box that lists samples. Missing samples are seen in the index."""
    return any(
        not kind or (kind in (b"moov", b"moof") and at + length > size)
        for at, kind, length in mp4_boxes(file, size)
    )


CUTS: dict[str, Callable[[BinaryIO, int], bool]] = {
    "gif": cut_gif,
    "apng": cut_png,
    "avi": cut_avi,
    "matroska,webm": cut_matroska,
    "asf": cut_asf,
    "ogg": cut_ogg,
    "mpeg": cut_mpeg,
    "mpegts": cut_mpegts,
    "flv": cut_flv,
    "mxf": cut_mxf,
    MP4: cut_mp4,
}
