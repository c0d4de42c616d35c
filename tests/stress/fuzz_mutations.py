"""Ways to spoil a file: of any kind, by bytes, and of text, by the values in it.

Everything is a function of a random generator, so a case is known by its seed.
"""

from __future__ import annotations

import json
import random
import re
import struct
from typing import Any

# Lengths and counts that overflow, do not fit, or are none.
EXTREME = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63,
    2**64 - 1,
)
HOSTILE_TEXTS = (
    *(
        "",
        " ",
        "\t",
        "-1",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "null",
        "true",
        "[]",
        "{}",
        "'",
        '"',
        '"""',
    ),
    *("9" * 5000, "1" * 400, "0" * 20, "1_000", "٣", "½", "0x10", "1.0.0", "+1", "--"),
    *(
        "../../escaped",
        "..",
        ".",
        "/",
        "//",
        "/etc/passwd",
        "~",
        "~root",
        "C:\\x",
        "\\\\host\\share",
    ),
    *("a\0b", "\0", "a\nb", "a\rb", "\x1b[31m", "\u2028", "\ufeff", "\u202e", "é" * 300, "e\u0301"),
    *(
        "x" * 300,
        "x" * 100_000,
        "%s%n",
        "${HOME}",
        "$(touch escaped)",
        "`touch escaped`",
        "; touch x",
    ),
    *(
        "<script>alert(1)</script>",
        "{{7*7}}",
        "[red]",
        "[/]",
        "file:///etc/passwd",
        "CON",
        "*",
        "?",
    ),
    *("1017/1048/11", "1017/1048/11/86", "a/b/c/d/e", "a//b", "/a/b/c", "a/../b", "😀", "𝟙/𝟚/𝟛"),
)
HOSTILE_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**30,
        10**400,
        0.5,
        -0.0,
        1e308,
    ),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, [1, "1", [1]], [[[[[[1]]]]]]),
)


def spoiled(content: bytes, random_: random.Random) -> bytes:
    """The content with one to four changes that know nothing of its format."""
    changed = bytearray(content)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        random_.choice(CHANGES)(changed, random_)
    return bytes(changed)


def place(content: bytearray, random_: random.Random) -> int:
    """A position, as often as not near the start, where headers are."""
    end = len(content) if random_.random() < 0.5 else min(len(content), 512)
    return random_.randrange(end) if end else 0


def flip_bits(content: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice((1, 1, 3, 20)) if content else 0):
        content[place(content, random_)] ^= 1 << random_.randrange(8)


def set_bytes(content: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice((1, 4)) if content else 0):
        content[place(content, random_)] = random_.choice((0, 0xFF, random_.randrange(256)))


def cut(content: bytearray, random_: random.Random) -> None:
    del content[random_.randrange(len(content) + 1) :]


def remove_block(content: bytearray, random_: random.Random) -> None:
    at = place(content, random_)
    del content[at : at + random_.choice((1, 2, 4, 16, 300, 5000))]


def insert_block(content: bytearray, random_: random.Random) -> None:
    at, size = place(content, random_), random_.choice((1, 2, 4, 16, 300, 70_000))
    block = bytes(size) if random_.random() < 0.5 else random_.randbytes(size)
    content[at:at] = block


def repeat_block(content: bytearray, random_: random.Random) -> None:
    at, size = place(content, random_), random_.choice((4, 64, 1000))
    content[at:at] = content[at : at + size] * random_.choice((1, 2, 50))


def swap_blocks(content: bytearray, random_: random.Random) -> None:
    size = random_.choice((1, 4, 64, 1000))
    one, other = sorted((place(content, random_), place(content, random_)))
    if one + size <= other and other + size <= len(content):
        first, second = content[one : one + size], content[other : other + size]
        content[one : one + size], content[other : other + size] = second, first


def set_number(content: bytearray, random_: random.Random) -> None:
    """Writes an extreme number where a length may stand, in either order of bytes."""
    code = random_.choice("BHIQ")
    size = struct.calcsize(f"<{code}")
    if len(content) > size:
        at = min(place(content, random_), len(content) - size)
        value = random_.choice(EXTREME) % 2 ** (8 * size)
        content[at : at + size] = struct.pack(random_.choice("<>") + code, value)


CHANGES = (
    *(flip_bits, set_bytes, cut, remove_block, insert_block),
    *(repeat_block, swap_blocks, set_number, set_number),
)


# -------------------------------------------------------------------------------------------- text


def hostile_text(random_: random.Random) -> str:
    return random_.choice(HOSTILE_TEXTS)


LONGEST_LINE = 10_000_000  # repeated twice it would be the tool that takes the memory


def hostile_lines(text: str, random_: random.Random) -> bytes:
    """The text with cells, lines or separators replaced, as UTF-8 or as something else."""
    lines = text.splitlines()
    for _ in range(random_.choice((1, 1, 2, 5))):
        at = random_.randrange(len(lines))
        cells = re.split(r"([;,/=])", lines[at])
        which = random_.randrange(len(cells))
        match random_.randrange(7):
            case 0:
                lines[at] = hostile_text(random_)
            case 1:
                lines.insert(at, lines[random_.randrange(len(lines))])
            case 2:
                cells[which] = ""
                lines[at] = "".join(cells)
            case 3:
                lines[at] = (lines[at] * random_.choice((2, 2000)))[:LONGEST_LINE]
            case 4:
                lines[at] = f'"{lines[at]}'
            case _:
                cells[which] = hostile_text(random_)
                lines[at] = "".join(cells)
    whole = random_.choice(("\n", "\n", "\r\n", "\r", "\0")).join(lines)
    encoding = random_.choice(
        ("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp037")
    )
    content = whole.encode(encoding, "replace")
    return spoiled(content, random_) if random_.random() < 0.1 else content


def hostile_value(random_: random.Random) -> Any:
    return random_.choice(HOSTILE_VALUES) if random_.random() < 0.6 else hostile_text(random_)


def hostile_json(text: str, random_: random.Random) -> bytes:
    """The JSON text with values, names or the whole replaced."""
    if random_.random() < 0.1:
        return random_.choice(
            (b"", b"null", b"[]", b"1", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN")
        )
    document = json.loads(text)
    for _ in range(random_.choice((1, 1, 2))):
        document = with_hostile(document, random_)
    content = json.dumps(document).encode()
    return spoiled(content, random_) if random_.random() < 0.2 else content


def with_hostile(value: Any, random_: random.Random) -> Any:
    """A copy with a hostile value somewhere in it."""
    if not isinstance(value, (dict, list)) or not value or random_.random() < 0.1:
        return hostile_value(random_)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = random_.choice(list(keys))
    chance = random_.random()
    if isinstance(value, dict):
        rest = dict(value)
        if chance < 0.1:
            rest[hostile_text(random_)] = rest.pop(key)
        elif chance < 0.2:
            del rest[key]
        else:
            rest[key] = with_hostile(rest[key], random_)
        return rest
    items = list(value)
    if chance < 0.1:
        items.append(items[key])
    elif chance < 0.2:
        del items[key]
    else:
        items[key] = with_hostile(items[key], random_)
    return items


def hostile_toml(text: str, random_: random.Random) -> bytes:
    """The TOML text with values replaced by extremes of their own and of other types."""
    lines = text.splitlines()
    settings = [at for at, line in enumerate(lines) if re.match(r"\w+ *=", line)]
    for _ in range(random_.choice((1, 1, 2, 4))):
        at = random_.choice(settings)
        name = lines[at].partition("=")[0]
        lines[at] = f"{name}= {toml_value(random_)}"
    if random_.random() < 0.1:
        lines.append(
            random_.choice(
                (f"a = {'[' * 20_000}", "[x]" * 3, "[a.b]\nc=1", "epochs = 1", "1=1", "a.b=1")
            )
        )
    content = "\n".join(lines).encode()
    return hostile_lines("\n".join(lines), random_) if random_.random() < 0.15 else content


def toml_value(random_: random.Random) -> str:
    numbers = (*("2", "3", "4096", "4097", "100000", "0.001", "1.0", "10"),) * 2 + (
        "0",
        "-1",
        "1",
        "9" * 400,
        "9" * 5000,
        "2000000000",
        "4294967296",
        "1e308",
        "-0.0",
        "0.5",
    )
    others = (
        "nan",
        "inf",
        "-inf",
        "true",
        "[]",
        "{}",
        "[1, 'a']",
        "1979-05-27",
        "''",
        "[[1]]",
        "0x_",
        "'",
    )
    kind = random_.randrange(3)
    if kind == 2:
        return json.dumps(hostile_text(random_))
    return random_.choice(numbers if kind == 0 else others)
