"""How long a module and a function may be, so that one sees each as a whole."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lus_cli"
MODULE_LINES = 350
FUNCTION_LINES = 60
# Module, or module and function -> why it is longer.
EXCEPTIONS = {
    "config": "the options of all commands, a field each: nothing in it is read as a whole",
}


def too_long() -> set[str]:
    """Modules as `package/module`, and functions as `package/module:function`, over the limits."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MODULE_LINES:
            names.add(module)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
                    names.add(f"{module}:{node.name}")
    return names


def test_modules_and_functions_are_short() -> None:
    assert too_long() <= {*EXCEPTIONS}, "split what is named here but not in EXCEPTIONS"


def test_every_exception_is_needed() -> None:
    assert {*EXCEPTIONS} <= too_long(), "it is short enough by now: remove it from EXCEPTIONS"
