"""Overlays and cards, by their pixels."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lus_cli.pages import overlay
from lus_cli.pages.overlay import Caption, colour_mask, draw_card

CAPTION = Caption("1017/1048/11/86", "paper-1", 2, (0.03, 0.12, 0.71, 0.14))


def frame_of(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (rows, columns), dtype=np.uint8)


def contains(picture: np.ndarray, colour: str) -> bool:
    return bool((picture == list(bytes.fromhex(colour[1:]))).all(axis=2).any())


def test_unattended_tissue_stays_as_it_was():
    frame = frame_of(60, 80)
    assert (colour_mask(frame, np.zeros((7, 7), np.float32)) == frame[:, :, None]).all()


def test_the_mask_falls_where_it_points():
    frame, mask = np.full((70, 140), 60, np.uint8), np.zeros((7, 7), np.float32)
    mask[1, 5] = 1  # upper right
    changed = np.abs(colour_mask(frame, mask).astype(int) - 60).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    assert (row // 10, column // 20) == (1, 5)
    assert changed[40:, :80].max() == 0


def test_attention_grows_smoothly_and_lighter():
    frame, mask = np.zeros((40, 400), np.uint8), np.linspace(0, 1, 9, dtype=np.float32)[None]
    lightness = colour_mask(frame, mask)[20].sum(axis=1).astype(int)
    off_the_line = np.delete(lightness, np.arange(190, 210))
    assert off_the_line[-1] > 300
    assert (np.diff(off_the_line) >= -3).all()


def test_tissue_shows_through_where_attention_is_complete():
    frame = np.zeros((20, 20), np.uint8)
    frame[:, 10:] = 255
    covered = colour_mask(frame, np.ones((3, 3), np.float32)).astype(int)
    assert (covered[10, 15] - covered[10, 5]).sum() > 150


def test_a_line_runs_where_the_mask_is_one_half():
    mask = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (100, 1))
    picture = colour_mask(np.zeros((100, 100), np.uint8), mask)
    assert picture.min(axis=2).argmax(axis=1).tolist() == [50] * 100


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_gray_and_colour_frames_give_the_same_overlay(channels):
    gray = frame_of(32, 32)
    frame = np.broadcast_to(gray.reshape(32, 32, *[1 for _ in channels]), (32, 32, *channels))
    mask = np.full((4, 4), 0.4, np.float32)
    assert (colour_mask(frame, mask) == colour_mask(gray, mask)).all()


@pytest.mark.parametrize(
    "size", [(64, 64), (256, 256), (768, 1024), (1024, 1024), (512, 64), (48, 640)]
)
def test_a_card_reads_well_at_any_frame_size(size):
    card = draw_card(frame_of(*size), np.full((7, 7), 0.4, np.float32), CAPTION)
    assert card.dtype == np.uint8
    rows, columns = card.shape[:2]
    assert 550 <= columns <= 2000
    assert 280 <= rows <= 1500
    assert (card[:, :8] == card[0, 0]).all()  # nothing is cut off at the side
    assert (card[:, -8:] == card[0, 0]).all()


def test_a_card_holds_the_frame_and_the_overlay():
    frame = frame_of(450, 500)  # between PANEL and LARGEST_PANEL: shown as it is
    mask = np.full((7, 7), 0.3, np.float32)
    card = draw_card(frame, mask, CAPTION)
    for picture in (overlay.as_rgb(frame), colour_mask(frame, mask)):
        windows = np.lib.stride_tricks.sliding_window_view(card, (1, 40, 3))[:, :, 0, 0]
        found = np.argwhere((windows == picture[0, :40]).all(axis=(2, 3)))
        assert len(found) == 1
        row, column = found[0]
        assert (card[row : row + 450, column : column + 500] == picture).all()


def test_a_card_with_grad_cam_holds_the_frame_three_times_and_names_both_maps():
    frame = frame_of(450, 500)
    mask, saliency = np.full((7, 7), 0.3, np.float32), np.eye(7, dtype=np.float32)
    card = draw_card(frame, mask, CAPTION, saliency)
    assert 280 <= card.shape[0] <= 1500
    assert card.shape[1] <= 2000
    places = []
    for picture in (overlay.as_rgb(frame), colour_mask(frame, mask), colour_mask(frame, saliency)):
        windows = np.lib.stride_tricks.sliding_window_view(card, (1, 40, 3))[:, :, 0, 0]
        [place] = np.argwhere((windows == picture[0, :40]).all(axis=(2, 3)))
        places.append(place)
    assert len({row for row, _ in places}) == 1
    columns = [column for _, column in places]
    assert columns == sorted(columns)
    below = card[places[0][0] + 450 :]
    for column in columns[1:]:  # a name under each map, none under the frame
        assert below[:30, column : column + 60].max() > 80
    assert below[:30, columns[0] : columns[0] + 60].max() < 40


@pytest.mark.parametrize("size", [(64, 64), (768, 1024), (512, 64), (48, 640)])
def test_a_card_with_grad_cam_reads_well_at_any_frame_size(size):
    mask = np.full((7, 7), 0.4, np.float32)
    rows, columns = draw_card(frame_of(*size), mask, CAPTION, mask).shape[:2]
    assert 550 <= columns <= 2000
    assert 260 <= rows <= 1500


def test_right_wrong_and_unlabelled_look_different():
    frame, mask = np.zeros((64, 64), np.uint8), np.zeros((3, 3), np.float32)

    def card(score):
        return draw_card(frame, mask, Caption("1/1/1/1", "run", score, CAPTION.probabilities))

    seen = [
        (contains(card(score), overlay.RIGHT), contains(card(score), overlay.WRONG))
        for score in (2, 0, None)
    ]
    assert seen == [(True, False), (False, True), (False, False)]


def test_every_word_of_the_caption_is_on_the_card():
    frame, mask = np.zeros((64, 64), np.uint8), np.zeros((3, 3), np.float32)
    drawn = draw_card(frame, mask, CAPTION)
    others = [
        Caption("1017/1048/11/87", "paper-1", 2, CAPTION.probabilities),
        Caption("1017/1048/11/86", "paper-2", 2, CAPTION.probabilities),
        Caption("1017/1048/11/86", "paper-1", 1, CAPTION.probabilities),
        Caption("1017/1048/11/86", "paper-1", 2, (0.03, 0.13, 0.70, 0.14)),
    ]
    for other in others:
        assert not np.array_equal(drawn, draw_card(frame, mask, other))


def test_long_ids_are_shortened_to_fit_and_keep_their_ends():
    frame, mask = np.zeros((64, 64), np.uint8), np.zeros((3, 3), np.float32)
    card = draw_card(frame, mask, Caption("p" * 300 + "/1/1/86", "r" * 99, 0, (0.0, 0.0, 0.0, 1.0)))
    assert card.shape == draw_card(frame, mask, CAPTION).shape
    assert (card[:, -8:] == card[0, 0]).all()


def test_importing_it_stays_quick():
    code = "import sys, lus_cli.pages.overlay; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"matplotlib", "torch", "sklearn", "h5py", "typer"} & set(loaded)
