import numpy as np
import pytest
from PIL import Image

from t2i_tf import pictures

WHITE = 255


def images(rows, columns, height=8, width=8):
    """A picture of one colour for each place: (row, column, 77)."""
    grid = np.zeros((rows, columns, height, width, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            grid[row, column] = (row + 1, column + 1, 77)
    return grid


def box_of(canvas, colour):
    """Where a colour is: (top, left, bottom, right), and it must fill that rectangle."""
    where = np.all(canvas == colour, axis=-1)
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    box = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    assert where[box[0] : box[2], box[1] : box[3]].all()
    return tuple(map(int, box))


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("labels", [["", ""], ["a red flower", ""]])
def test_every_picture_stands_whole_in_its_row_and_column(scale, labels):
    canvas = np.asarray(pictures.labelled_grid(images(2, 3, 8, 10), labels, scale=scale))
    boxes = {(r, c): box_of(canvas, (r + 1, c + 1, 77)) for r in range(2) for c in range(3)}
    for (row, column), (top, left, bottom, right) in boxes.items():
        assert (bottom - top, right - left) == (8 * scale, 10 * scale)
        assert top == boxes[row, 0][0] and left == boxes[0, column][1]
    assert boxes[0, 0][1] < boxes[0, 1][1] < boxes[0, 2][1] and boxes[0, 0][0] < boxes[1, 0][0]


def ink(canvas):
    return np.argwhere(np.all(np.asarray(canvas) < 200, axis=-1))


def test_captions_are_written_left_of_their_row_and_headings_above():
    plain = np.full((2, 2, 64, 64, 3), WHITE, np.uint8)
    marks = ink(pictures.labelled_grid(plain, ["", "a violet flower"]))
    assert len(marks) and marks[:, 0].min() >= 68 and marks[:, 1].max() < 192
    marks = ink(pictures.labelled_grid(plain, ["", ""], ["seed 0", "seed 1"]))
    assert len(marks) and marks[:, 0].max() < 24


def test_without_captions_no_room_is_kept_for_them():
    assert pictures.labelled_grid(images(1, 2), [""]).width == 2 * (8 + 4) + 4


@pytest.mark.parametrize(
    "caption", ["a long caption " * 40, "Blüte mit fünf Blättern – 花 🌸", "x" * 400, "line\nbreak", " "]
)
def test_no_caption_runs_out_of_its_row_downwards(caption):
    plain = np.full((1, 1, 64, 64, 3), WHITE, np.uint8)
    grid = pictures.labelled_grid(plain, [caption])
    assert grid.size[1] == 64 + 8
    marks = ink(grid)
    assert not len(marks) or marks[:, 0].max() < grid.size[1]


def test_long_captions_end_in_dots():
    plain = np.full((1, 1, 32, 32, 3), WHITE, np.uint8)
    short = ink(pictures.labelled_grid(plain, ["word " * 4]))
    long = ink(pictures.labelled_grid(plain, ["word " * 400]))
    assert len(long) > len(short)


def test_enlargement_does_not_smooth():
    one = np.random.default_rng(0).integers(0, 256, (1, 1, 4, 4, 3), np.uint8)
    canvas = np.asarray(pictures.labelled_grid(one, [""], scale=5))[4:24, 4:24]
    np.testing.assert_array_equal(canvas, one[0, 0].repeat(5, 0).repeat(5, 1))


@pytest.mark.parametrize("size", [4, 8, 12, 10])
def test_enlarged_pictures_keep_their_pixels(size):
    small = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
    large = pictures.enlarged(small, size)
    assert large.shape == (2, 3, size, size, 3)
    for one, other in zip(small.reshape(-1, 4, 4, 3), large.reshape(-1, size, size, 3), strict=True):
        expected = Image.fromarray(one).resize((size, size), Image.Resampling.NEAREST)
        if size % 4 == 0:
            np.testing.assert_array_equal(other, expected)
        assert {*map(tuple, other.reshape(-1, 3))} == {*map(tuple, one.reshape(-1, 3))}


@pytest.mark.parametrize("headings", [None, ["sample", "nearest"]])
def test_notes_stand_below_their_picture_and_cover_none(headings):
    notes = [["", "12.34"], ["0.001", ""]]
    plain = np.full((2, 2, 64, 64, 3), WHITE, np.uint8)
    blank = np.asarray(pictures.labelled_grid(plain, ["", ""], headings, notes=[["", ""], ["", ""]]))
    canvas = np.asarray(pictures.labelled_grid(plain, ["", ""], headings, notes=notes))
    rows, columns = np.nonzero((canvas != blank).any(-1))
    coloured = np.asarray(pictures.labelled_grid(images(2, 2, 64, 64), ["", ""], headings, notes=notes))
    boxes = {(r, c): box_of(coloured, (r + 1, c + 1, 77)) for r in range(2) for c in range(2)}
    assert canvas.shape[0] > boxes[1, 0][2] + 11
    for row, column in ((0, 1), (1, 0)):
        _, left, bottom, right = boxes[row, column]
        below = boxes[row + 1, column][0] if row == 0 else canvas.shape[0]
        here = (rows >= bottom) & (rows < below) & (columns >= left) & (columns < right)
        assert here.any()
        rows, columns = rows[~here], columns[~here]
    assert not len(rows), "and no ink is anywhere else"


def test_a_short_label_takes_no_more_room_than_it_needs():
    plain = np.full((1, 1, 64, 64, 3), WHITE, np.uint8)
    grid = pictures.labelled_grid(plain, ["seed 3"])
    assert 68 + 20 < grid.width < 68 + 80
    assert ink(grid)[:, 1].max() < grid.width - 68


def test_a_line_of_wide_letters_is_not_covered_by_the_picture():
    plain = np.full((1, 1, 64, 64, 3), WHITE, np.uint8)
    grid = pictures.labelled_grid(plain, ["W" * 60])
    assert ink(grid)[:, 1].max() < grid.width - 68


def test_labels_at_the_right_leave_the_rest_as_it_is():
    plain = np.full((2, 1, 64, 64, 3), WHITE, np.uint8)
    without = np.asarray(pictures.labelled_grid(plain, ["given", ""]))
    grid = np.asarray(pictures.labelled_grid(plain, ["given", ""], right_labels=["", "read back " * 9]))
    np.testing.assert_array_equal(grid[:, : without.shape[1]], without)
    marks = ink(grid[:, without.shape[1] :])
    assert len(marks) and marks[:, 0].min() >= 68 and marks[:, 1].min() >= 4
    assert marks[:, 1].max() < grid.shape[1] - without.shape[1]


def test_saving_makes_the_folder_and_leaves_nothing_beside(tmp_path):
    image = Image.fromarray(images(1, 1)[0, 0])
    path = pictures.save(image, tmp_path / "a" / "b" / "grid.png")
    assert [entry.name for entry in path.parent.iterdir()] == ["grid.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(image))
    pictures.save(Image.new("RGB", (2, 2)), path)
    assert Image.open(path).size == (2, 2)
