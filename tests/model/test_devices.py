"""No device is silently replaced by another."""

from __future__ import annotations

import pytest
import torch

from lus_cli.errors import LusError
from lus_cli.model import devices
from lus_cli.model.backbones import build_backbone
from lus_cli.model.devices import (
    MAX_ACTIVATION_BYTES,
    available_devices,
    choose_device,
    choose_precision,
    explaining_out_of_memory,
    frames_at_once,
    set_threads,
)
from lus_cli.model.ranks import Ranks
from lus_cli.processes import cores


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["mps", "cpu"])
    assert choose_device("auto").type == "mps"


def test_what_is_not_there_is_an_error_that_lists_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    with pytest.raises(LusError, match=r"no mps device.*auto or cuda, cpu"):
        choose_device("mps")


def test_the_cpu_is_always_there() -> None:
    assert available_devices()[-1] == "cpu"
    assert choose_device("cpu") == torch.device("cpu")


def test_chunks_bound_the_largest_activation() -> None:
    """SPEC: the first convolution of ResNet18 over 4 x 252 frames at 256 px takes 3.94 GiB."""
    body, _ = build_backbone("resnet18", "none")
    frames = frames_at_once(body, (256, 256), MAX_ACTIVATION_BYTES)
    per_frame = 64 * 128 * 128 * 4
    assert frames == MAX_ACTIVATION_BYTES // per_frame
    assert 4 * 252 * per_frame / 2**30 == pytest.approx(3.94, abs=0.01)


def test_each_process_on_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", Ranks(3, 4, 1, 2)) == torch.device("cuda", 1)
    with pytest.raises(LusError, match="4 processes, but 2 GPUs"):
        choose_device("cuda", Ranks(0, 4, 0, 4))


def test_processes_on_a_machine_share_its_cores() -> None:
    set_threads(0, Ranks(0, 2, 0, 2))
    assert torch.get_num_threads() == max(1, cores() // 2)
    set_threads(3)
    assert torch.get_num_threads() == 3


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) is None
    assert choose_precision("bf16", cpu) == torch.bfloat16
    # Nothing computes on "meta": it stands for a device that lacks half precision.
    with pytest.raises(LusError, match=r"meta does not compute in fp16.*--precision float32"):
        choose_precision("fp16", torch.device("meta"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
    ids=["cuda", "mps", "cpu", "python"],
)
def test_out_of_memory_is_one_line(error: Exception) -> None:
    with pytest.raises(LusError, match=r"out of memory.*less"), explaining_out_of_memory("less"):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), explaining_out_of_memory("less"):
        raise RuntimeError("shape mismatch")
