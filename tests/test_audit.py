"""What .ci/audit says of known vulnerabilities, and where nobody could be asked."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit"
FLAW = {"id": "PYSEC-2026-1", "fix_versions": ["2.1"]}


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which makes no environment."""
    loader = importlib.machinery.SourceFileLoader("audit", str(AUDIT))
    spec = importlib.util.spec_from_loader("audit", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module.venv, "create", lambda *_, **__: None)
    return module


def answering(monkeypatch: pytest.MonkeyPatch, audit: ModuleType, packages: list[Any]) -> None:
    """pip-audit, which exits with 1 where it finds something, answers this."""
    code = int(any(package.get("vulns") for package in packages))
    said = json.dumps({"dependencies": packages, "fixes": []})

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if "pip" in command:
            return subprocess.CompletedProcess(command, 0, "", "")
        return subprocess.CompletedProcess(command, code, said, "Found known vulnerabilities")

    monkeypatch.setattr(audit.subprocess, "run", run)


def test_a_vulnerable_package_is_named_and_fails(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = [
        {"name": "pillow", "version": "2.0", "vulns": [FLAW, {"id": "X", "fix_versions": []}]},
        {"name": "numpy", "version": "2.4", "vulns": []},
        {"name": "torch", "skip_reason": "not found"},
    ]
    answering(monkeypatch, audit, packages)
    assert audit.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "audit: pillow 2.0: PYSEC-2026-1, mended in 2.1",
        "audit: pillow 2.0: X, mended in no version yet",
        "audit: 2 of 3 packages looked up, 2 vulnerabilities",
    ]


def test_packages_without_vulnerabilities_pass(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, audit, [{"name": "numpy", "version": "2.4", "vulns": []}])
    assert audit.main() == 0
    assert capsys.readouterr().out == "audit: 1 of 1 packages looked up, 0 vulnerabilities\n"


def test_a_registry_without_advisories_is_not_taken_for_one_without_vulnerabilities(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(monkeypatch, audit, [{"name": "numpy", "skip_reason": "not found"}])
    assert audit.main() == 0
    assert "not looked up: the registry here has no advisories" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("pip", "pip-audit cannot be installed within 240 s"),
        ("pip_audit", "the database cannot be reached within 240 s"),
    ],
)
def test_where_nobody_answers_in_time_it_says_so_and_passes(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    reason: str,
) -> None:
    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command in words:
            raise subprocess.TimeoutExpired(words, options["timeout"])
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(audit.subprocess, "run", run)
    assert audit.main() == 0
    assert capsys.readouterr().out == f"audit: vulnerabilities were not looked up: {reason}\n"


def test_the_last_line_of_an_error_is_the_reason(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nConnectionError: no route\n")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: failed)
    assert audit.main() == 0
    assert "cannot be installed (ConnectionError: no route)" in capsys.readouterr().out
