"""lus devices: lists the devices of this machine and compares their results with the CPU."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lus_cli.config import DevicesConfig
from lus_cli.model import parity
from lus_cli.model.checkpoint import new_model
from lus_cli.model.devices import (
    PRECISIONS,
    available_devices,
    choose_device,
    computes_in,
    set_threads,
)
from lus_cli.model.differences import Difference, badness
from lus_cli.model.network import LusModel
from lus_cli.model.parity import CPU, Operation
from lus_cli.options import build
from lus_cli.processes import cores
from lus_cli.progress import Progress, Result, Table
from lus_cli.recipes.recipe import Recipe
from lus_cli.words import counted

LENGTHS = (3, 2, 1)  # frames of the videos compared


@dataclass
class Report:
    """The results of the comparison for one device."""

    device: torch.device
    whole: dict[str, list[Difference]] = field(default_factory=dict)  # by precision
    layers: dict[str, list[Difference]] = field(default_factory=dict)
    operations: list[tuple[Operation, list[Difference]]] = field(default_factory=list)
    tf32: float | None = None  # relative difference of the logits

    def wrong(self) -> list[Difference]:
        """All differences: of layers in the order of their computation, forward and then backward,
        of operations, and of the whole model."""
        layers = [e for entries in self.layers.values() for e in entries]
        forward = [e for e in layers if e.direction == "forward"]
        backward = [e for e in reversed(layers) if e.direction == "backward"]
        operations = [e for _, entries in self.operations for e in entries]
        whole = [e for entries in self.whole.values() for e in entries]
        return [e for e in forward + backward + operations + whole if e.verdict != "agrees"]

    @property
    def trusted(self) -> bool:
        return not self.wrong()


def run(config: DevicesConfig, progress: Progress) -> Result:
    set_threads(config.threads)
    devices = all_devices()
    changes = {"weights": "none"} | ({"backbone": config.backbone} if config.backbone else {})
    model = parity.prepared(new_model(build(Recipe, changes)))
    reports = []
    for done, device in enumerate(devices):
        progress("comparing devices", done, len(devices), device=device)
        reports.append(report_on(device, model))
    progress("comparing devices", len(devices), len(devices))
    tables = [device_table(reports)]
    for report in reports:
        tables += parity_tables(report)
    return Result(
        numbers=numbers(reports),
        tables=[*tables, operation_table(reports)],
        notes=notes(reports),
        failed=not all(report.trusted for report in reports),
    )


def all_devices() -> list[torch.device]:
    """Every device of this machine, GPUs one by one, in order of preference, the CPU last."""
    devices = []
    for kind in available_devices():
        count = torch.cuda.device_count() if kind == "cuda" else 1
        devices += [
            torch.device(kind, i) if kind == "cuda" else choose_device(kind) for i in range(count)
        ]
    return devices


# ------------------------------------------------------------------------------------ comparing


def report_on(device: torch.device, model: LusModel) -> Report:
    """Compares one device in float64, if it supports that, and in float32."""
    report = Report(device)
    sample = parity.speckle(LENGTHS)
    with tf32(False):
        for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
            if dtype == torch.float64 and (device == CPU or not has_float64(device)):
                continue
            report.whole[name] = parity.compare_whole(model, model, sample, device, dtype)
            report.layers[name] = parity.compare_layers(model, model, sample, device, dtype)
        report.operations = parity.compare_operations(device)
    if device.type == "cuda":
        with tf32(True):
            logits = parity.compare_whole(model, model, sample, device, torch.float32)[0]
        report.tf32 = logits.relative
    return report


def has_float64(device: torch.device) -> bool:
    try:
        layer = nn.Conv2d(1, 1, 3, device=device, dtype=torch.float64)
        layer(torch.ones(1, 1, 3, 3, device=device, dtype=torch.float64)).sum().backward()
    except parity.BROKEN:
        return False
    return True


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allows or forbids TF32, in which NVIDIA GPUs round to 10 bits before they multiply."""
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


# ----------------------------------------------------------------------------------- describing


def description(device: torch.device) -> str:
    """The product name of a device and its main properties."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, compute capability {properties.major}.{properties.minor}"
    if device.type == "mps":
        return f"{cpu_name()} GPU, macOS {platform.mac_ver()[0]}"  # CPU and GPU are one chip
    threads = torch.get_num_threads()
    return f"{cpu_name()}, {counted(cores(), 'core')}, {counted(threads, 'thread')}"


def cpu_name() -> str:
    """The name of the processor, or its architecture if the system does not report a name."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        lines = listing.read_text(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def memory(device: torch.device) -> int | None:
    """Memory in bytes, on MPS the recommended maximum; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def precisions(device: torch.device) -> list[str]:
    """The precisions that work on a device, by trying each value of `--precision` and float64."""
    able = [name for name, dtype in PRECISIONS.items() if not dtype or computes_in(dtype, device)]
    return (["float64"] if has_float64(device) else []) + able


# -------------------------------------------------------------------------------------- showing


def device_table(reports: list[Report]) -> Table:
    default = choose_device("auto").type
    rows = []
    for position, report in enumerate(reports):
        size = memory(report.device)
        rows.append(
            (
                str(report.device),
                description(report.device),
                f"{size / 2**30:.1f} GiB" if size else None,
                " ".join(precisions(report.device)),
                "agrees" if report.trusted else "DIFFERS",
                "auto" if position == 0 and report.device.type == default else "",
            )
        )
    columns = ("device", "description", "memory", "precisions", "parity", "--device")
    return Table("Devices", columns, rows)


def parity_tables(report: Report) -> list[Table]:
    """For each precision, a table of the whole model and one of the layers that differ."""
    tables = []
    for precision, whole in report.whole.items():
        layers = report.layers[precision]
        rows = [(label(e), *cells(e)) for e in whole]
        if layers:
            worst = max(layers, key=badness)
            names = {e.name for e in layers}
            rows.append((f"{len(names)} single layers, worst: {label(worst)}", *cells(worst)))
        columns = ("", "largest difference", "relative", "allowed", "")
        title = f"The model on {report.device} in {precision}, compared with float64 on the CPU"
        tables.append(Table(title, columns, rows))
        wrong = [e for e in report.wrong() if e in layers]
        if wrong:
            columns = ("layer", "largest difference", "relative", "allowed", "")
            rows = [(f"{label(e)} ({e.kind})", *cells(e)) for e in wrong]
            tables.append(
                Table(f"Layers that differ on {report.device} in {precision}", columns, rows)
            )
    return tables


def label(entry: Difference) -> str:
    """The first cell of a difference in a table."""
    backward = entry.kind and entry.direction == "backward"
    return entry.name + (", backward" if backward else "")


def cells(entry: Difference) -> tuple[str | None, str | None, str, str]:
    """The other cells: largest and relative difference, allowance and verdict."""
    shown = [f"{x:.1e}" if math.isfinite(x) else None for x in (entry.largest, entry.relative)]
    return shown[0], shown[1], f"{entry.allowed:.1e}", entry.failure or entry.verdict


def operation_table(reports: list[Report]) -> Table:
    """The verdict on each operation that has been wrong on some device, one column per device."""
    columns = ("operation", "pytorch", *(str(report.device) for report in reports))
    rows = []
    for position, (operation, _) in enumerate(reports[0].operations):
        cells = [max(report.operations[position][1], key=badness).verdict for report in reports]
        rows.append((operation.name, operation.report and f"#{operation.report}", *cells))
    return Table("Operations that have been wrong on some accelerator", columns, rows)


def notes(reports: list[Report]) -> list[str]:
    lines = []
    if len(reports) == 1:
        lines.append(
            "there is no device other than the CPU; its float32 was compared with its float64"
        )
    for report in reports:
        wrong = report.wrong()
        if wrong:
            first = f"{wrong[0].name} {wrong[0].verdict} first, {wrong[0].direction}"
            others = [str(r.device.type) for r in reports if r.trusted]
            remedy = f"use --device {others[0]}" if others else "update PyTorch"
            lines.append(f"{report.device} computes wrong results: {first}; {remedy}")
        if report.tf32 is not None and math.isfinite(report.tf32):
            lines.append(
                "the comparison disables TF32; with TF32, PyTorch's default for convolutions, the "
                f"relative error of the logits on {report.device} is {report.tf32:.1e}"
            )
    return lines


def numbers(reports: list[Report]) -> dict[str, Any]:
    return {
        "auto": choose_device("auto").type,
        "trusted": all(report.trusted for report in reports),
        "torch": torch.__version__,
        "devices": [
            {
                "device": str(report.device),
                "description": description(report.device),
                "memory_bytes": memory(report.device),
                "precisions": precisions(report.device),
                "trusted": report.trusted,
                "wrong": [document(e) for e in report.wrong()],
                "whole": {p: [document(e) for e in es] for p, es in report.whole.items()},
                "layers": {p: [document(e) for e in es] for p, es in report.layers.items()},
                "operations": [
                    {"report": operation.report} | document(entry)
                    for operation, entries in report.operations
                    for entry in entries
                ],
                "tf32_logits": report.tf32,
            }
            for report in reports
        ],
    }


def document(entry: Difference) -> dict[str, Any]:
    """A difference as JSON."""
    return asdict(entry) | {"verdict": entry.verdict}
