"""What messages advise can be done: every option that is named exists, on a command that is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lus_cli import config, options

PACKAGE = Path(__file__).parents[1] / "lus_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
OTHERS = {"--upgrade", "--nproc-per-node", "--json", "--quiet", "--verbose", "--config", "--recipe"}
OTHERS |= {"--version", "--help", "--logdir"}  # the last one is of tensorboard
CONFIGS = {
    name.removesuffix("Config").lower(): kind
    for name, kind in vars(config).items()
    if name.endswith("Config") and isinstance(kind, type)
}


def flags_of(kind: type) -> set[str]:
    fields = options.fields_of(kind).values()
    return {flag for e in fields for flag in (e.flag, f"--no-{e.flag[2:]}")}


FLAGS = {name: flags_of(kind) for name, kind in CONFIGS.items()}


def texts(path: Path) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_message_names_an_option_that_is_not_there(path: Path) -> None:
    everywhere = set().union(*FLAGS.values(), OTHERS)
    step = FLAGS.get(path.stem.removesuffix("_videos")) if path.parent.name == "steps" else None
    for text in texts(path):
        commands = re.findall(r"`lus ([a-z]+)([^`]*)`", text)
        for command, rest in commands:
            assert command in FLAGS, text
            for flag in re.findall(r"--[a-z][a-z-]+", rest):
                assert flag in FLAGS[command] | OTHERS, text
        alone = re.sub(r"`[^`]*`", "", text)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+\b", alone):
            assert flag in everywhere | {"--no"}, text
            if step is None or path.stem == "devices":  # which speaks of all other commands
                continue
            if not re.search(r"\b[Tt]rain\b", text):
                assert flag in step | OTHERS, (text, path.stem)
