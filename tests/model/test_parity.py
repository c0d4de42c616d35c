"""A wrong kernel is named, alone and in its direction; rounding is not.

No accelerator is needed: a second model on the CPU, with one layer broken as a kernel would be,
stands for the device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lus_cli.config import DevicesConfig
from lus_cli.model import lstm as lstm_module
from lus_cli.model import operations, parity
from lus_cli.model.checkpoint import new_model
from lus_cli.model.lstm import VideoLSTM
from lus_cli.model.network import LusModel
from lus_cli.model.parity import CPU, compare_layers, compare_whole
from lus_cli.options import build
from lus_cli.progress import silent
from lus_cli.recipes.recipe import Recipe
from lus_cli.steps import devices
from tests.conftest import PAPER

SAMPLE = parity.speckle((3, 2, 1), side=96)
ELSEWHERE = torch.device("cpu", 0)  # the CPU under another name, compared with the first


def model(**changes: Any) -> LusModel:
    values = {"weights": "none", "hidden": 16} | changes
    return parity.prepared(new_model(build(Recipe, PAPER | values)))


class Broken(nn.Module):
    """A layer whose output, or whose gradient, is not what it should be."""

    def __init__(
        self,
        layer: nn.Module,
        forward: Callable[[Tensor], Tensor] = lambda x: x,
        backward: Callable[[Tensor], Tensor] = lambda g: g,
    ) -> None:
        super().__init__()
        self.layer, self.change, self.change_back = layer, forward, backward

    def forward(self, *inputs: Any) -> Tensor:
        output = self.change(self.layer(*inputs))
        if output.requires_grad:
            output.register_hook(self.change_back)
        return output


class SwappedGates(VideoLSTM):
    """Two gates of the second direction, swapped."""

    def forward(self, vectors: Tensor, steps: Tensor) -> Tensor:
        parameters = dict(self.named_parameters())
        i, f, g, o = parameters["weight_ih_l0_reverse"].chunk(4)
        parameters["weight_ih_l0_reverse"] = torch.cat([i, g, f, o])
        lstm = VideoLSTM(self.input_size, self.hidden_size)
        return torch.func.functional_call(lstm, parameters, (vectors, steps))


def with_swapped_gates(layer: nn.Module) -> nn.Module:
    layer.__class__ = SwappedGates
    return layer


class Missing(nn.Module):
    """A layer without a kernel."""

    def forward(self, *_inputs: Any) -> Tensor:
        raise NotImplementedError("The operator 'aten::relu' is not implemented for the device")


def doubled(layer: nn.Module) -> nn.Module:
    return Broken(layer, backward=lambda g: 2 * g)


def wrong(entries: list[parity.Difference]) -> list[tuple[str, str, str]]:
    return [(e.name, e.direction, e.verdict) for e in entries if e.verdict != "agrees"]


def with_layer(right: LusModel, name: str, change: Callable[[nn.Module], nn.Module]) -> LusModel:
    suspect = copy.deepcopy(right)
    suspect.set_submodule(name, change(suspect.get_submodule(name)))
    return suspect


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_difference(dtype: torch.dtype) -> None:
    right = model()
    layers = compare_layers(right, right, SAMPLE, ELSEWHERE, dtype)
    names = {name for name, module in right.named_modules() if not list(module.children())}
    assert {(e.name, e.direction) for e in layers} == {
        (name, direction) for name in names for direction in ("forward", "backward")
    }
    assert not wrong(layers)
    assert not wrong(compare_whole(right, right, SAMPLE, ELSEWHERE, dtype))


@pytest.mark.parametrize(
    ("name", "break_it", "expected"),
    [
        pytest.param(
            "backbone.features.3",
            lambda layer: Broken(layer, forward=lambda x: x * 1.001),
            [("forward", "differs"), ("backward", "differs")],
            id="a convolution off by a thousandth",
        ),
        pytest.param(
            "heads.0.attention.layers.1",
            lambda layer: Broken(layer, backward=lambda g: 3 * g),
            [("backward", "differs")],
            id="a batch norm wrong in its gradient only",
        ),
        pytest.param(
            "heads.0.lstm",
            lambda layer: Broken(layer, backward=lambda g: g * torch.nan),
            [("backward", "not finite")],
            id="an LSTM whose gradient is not a number",
        ),
        pytest.param(
            "heads.0.attention.layers.7",
            lambda layer: Broken(layer, forward=lambda x: x.bfloat16().to(x.dtype)),
            [("forward", "differs"), ("backward", "differs")],
            id="a sigmoid in half precision",
        ),
        pytest.param(
            "heads.0.lstm",
            with_swapped_gates,
            [("forward", "differs"), ("backward", "differs")],
            id="an LSTM with its gates swapped",
        ),
        pytest.param(
            "backbone.features.1",
            lambda _: Missing(),
            [("forward", "fails")],
            id="a missing kernel",
        ),
    ],
)
def test_exactly_the_wrong_layer_is_named(
    name: str, break_it: Callable[[nn.Module], nn.Module], expected: list[tuple[str, str]]
) -> None:
    right = model()
    suspect = with_layer(right, name, break_it)
    differing = wrong(compare_layers(right, suspect, SAMPLE, ELSEWHERE, torch.float32))
    assert differing == [(name, *rest) for rest in expected]


def test_the_whole_model_shows_what_lies_between_its_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Padding, pooling and the rest are no layers: a wrong one shows in the logits only."""
    right = model()
    suspect = copy.deepcopy(right)
    suspect.heads[0].pool = "last"
    assert not wrong(compare_layers(right, suspect, SAMPLE, ELSEWHERE, torch.float32))
    differing = wrong(compare_whole(right, suspect, SAMPLE, ELSEWHERE, torch.float32))
    assert ("logits", "forward", "differs") in differing
    assert ("logits when scoring", "forward", "differs") in differing


def test_a_gradient_that_is_not_finite_is_named_in_the_whole_model() -> None:
    right = model()
    suspect = copy.deepcopy(right)
    assert suspect.heads[0].attention is not None

    def overflow(_module: nn.Module, _inputs: object, mask: Tensor) -> None:
        if mask.requires_grad:
            mask.register_hook(lambda gradient: gradient * torch.inf)

    suspect.heads[0].attention.register_forward_hook(overflow)
    differing = wrong(compare_whole(right, suspect, SAMPLE, ELSEWHERE, torch.float32))
    ((name, direction, verdict),) = differing
    assert (direction, verdict) == ("backward", "not finite")
    assert name.startswith("gradient, worst: ")


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_small"])
def test_backbones_that_overwrite_and_reuse_layers_can_be_compared(backbone: str) -> None:
    right = model(backbone=backbone, feature_stride=8)
    assert not wrong(compare_layers(right, right, SAMPLE, ELSEWHERE, torch.float32))
    assert not wrong(compare_whole(right, right, SAMPLE, ELSEWHERE, torch.float32))


def test_lstms_are_held_against_packed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, entries in operations.compare_operations(ELSEWHERE):
        assert not wrong(entries)
    honest = lstm_module.bidirectional_by_reversal
    monkeypatch.setattr(
        lstm_module,
        "bidirectional_by_reversal",  # as if every video were as long as the longest
        lambda lstm, vectors, steps: honest(
            lstm, vectors, torch.full_like(steps, int(steps.max()))
        ),
    )
    compared = operations.compare_operations(ELSEWHERE)
    assert {e[0] for _, entries in compared for e in wrong(entries)} == {"LSTM over videos"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "speckle", lambda lengths: SAMPLE)


@pytest.mark.usefixtures("small")
def test_a_cpu_alone_is_compared_with_itself_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "all_devices", lambda: [CPU])
    result = devices.run(DevicesConfig(threads=1), silent)
    assert not result.failed
    assert result.numbers["trusted"]
    assert "there is no device other than the CPU" in result.notes[0]
    (listed,) = result.numbers["devices"]
    assert list(listed["whole"]) == ["float32"]
    assert {"float64", "float32"} <= set(listed["precisions"])


@pytest.mark.usefixtures("small")
def test_a_wrong_device_fails_and_the_first_wrong_layer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = parity.compare_layers

    def dishonest(truth: Any, suspect: Any, sample: Any, device: Any, dtype: Any) -> Any:
        if device == ELSEWHERE:
            suspect = with_layer(suspect, "heads.0.lstm", with_swapped_gates)
            suspect = with_layer(suspect, "heads.0.last", doubled)
        return honest(truth, suspect, sample, device, dtype)

    monkeypatch.setattr(devices, "all_devices", lambda: [ELSEWHERE, CPU])
    monkeypatch.setattr(parity, "compare_layers", dishonest)
    result = devices.run(DevicesConfig(threads=1), silent)
    assert result.failed
    assert any(
        "heads.0.lstm differs first, forward; use --device cpu" in note for note in result.notes
    )
    (table,) = [t for t in result.tables if t.title == "Layers that differ on cpu:0 in float32"]
    assert [row[0].partition(" (")[0] for row in table.rows] == [
        "heads.0.lstm",
        "heads.0.last, backward",
        "heads.0.lstm, backward",
    ]
    assert [entry["trusted"] for entry in result.numbers["devices"]] == [False, True]
