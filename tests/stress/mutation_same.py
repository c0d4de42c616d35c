"""Mutants that no test could notice, or should be held to, each with the reason."""

from __future__ import annotations

import re

LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
# What is taken away and added -> why nobody could tell the two apart.
SAME = {
    "- return self.probabilities @ np.array(SCORES, dtype=float)\n"
    "+ return self.probabilities @ np.array(SCORES, dtype=None)": "float64 times int64 is float64",
    "- return self.probabilities @ np.array(SCORES, dtype=float)\n"
    "+ return self.probabilities @ np.array(SCORES, )": "float64 times int64 is float64",
    "- return math.ceil(round(count * share, 9))\n"
    "+ return math.ceil(round(count * share, 10))": "both are far above what a float rounds by",
    '- places = f"twice in {named[0]}" if named[0] == named[1] else places\n'
    '+ places = f"twice in {named[1]}" if named[0] == named[1] else places': "they are equal",
}
FIRST_DRAW = re.compile(r"best, lowest = np.zeros\(len\(names\), (\w*)\), math.inf")


def why_same(change: str) -> str:
    """Why a change, `- old / + new`, is none that a test must notice; "" if it is one."""
    if change in SAME:
        return SAME[change]
    old, _, new = change.partition("\n+ ")
    old = old.removeprefix("- ")
    texts = [(a, b) for a, b in zip(LITERAL.findall(old), LITERAL.findall(new)) if a != b]  # noqa: B905
    if len(texts) == 1 and LITERAL.sub("", old) == LITERAL.sub("", new):
        was, now = texts[0]
        if " " in was and was.lower() == now.replace("XX", "").lower():
            return "only the wording of a message"
        if was in ("utf-8", "utf-8-sig") and now.lower() == was:
            return "a codec's name is the same in capitals"
    if re.sub(r"=False\b", "=None", old) == re.sub(r"=False\b", "=None", new):
        return "None is as false as False"
    if re.sub(r'encoding="utf-8"(, )?', "", old) in (
        re.sub(r"encoding=None(, )?", "", new),
        new,
    ):
        return "UTF-8 is what it is without, where tests run"
    if re.sub(r", strict=True\)", ")", old) == re.sub(r", (strict=\w+)?\)", ")", new):
        return "a check of lengths that are the same by construction"
    if re.sub(r'newline="\\n"(, )?', "", old) in (re.sub(r"newline=None(, )?", "", new), new):
        return "a line ends the same on POSIX"
    if FIRST_DRAW.search(old) and FIRST_DRAW.search(new):
        return "zeros that the first draw replaces, whatever their type"
    return ""
