from __future__ import annotations

import numpy as np
import pytest
from choreo.media.pictures import load_picture, picture_size, save_picture
from PIL import Image

QUADRANTS = np.zeros((6, 8, 3), np.uint8)
QUADRANTS[:3, :4], QUADRANTS[:3, 4:], QUADRANTS[3:, :4], QUADRANTS[3:, 4:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 128


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    # The stored pixels are the upright ones with the flag's transformation undone.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo(QUADRANTS))).save(tmp_path / "a.png", exif=exif)
    assert picture_size(tmp_path / "a.png") == (6, 8)
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png"), QUADRANTS)


def test_alpha_is_laid_over_the_background(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png")[0], [(200, 100, 0), (255,) * 3, (244, 224, 204)])
    np.testing.assert_array_equal(load_picture(tmp_path / "a.png", (0, 0, 0))[0, 1:], [(0, 0, 0), (40, 20, 0)])


def test_palette_with_transparency_and_grey_with_alpha(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 200, 210, 220])
    palette.save(tmp_path / "p.png", transparency=1)
    np.testing.assert_array_equal(load_picture(tmp_path / "p.png", (1, 2, 3))[0], [(10, 20, 30), (1, 2, 3)])
    Image.fromarray(np.array([[[77, 255], [77, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(load_picture(tmp_path / "la.png", (1, 2, 3))[0], [(77, 77, 77), (1, 2, 3)])


@pytest.mark.parametrize(
    ("samples", "suffix"),
    [
        (np.array([[0, 257, 32896, 65535]], np.uint16), "png"),
        (np.array([[0, 257, 32896, 65535]], np.uint16), "tiff"),
        (np.array([[0, 257, 32896, 65535]], np.int32), "tiff"),
        (np.array([[0, 1 / 255, 128 / 255, 1]], np.float32), "tiff"),
        (np.array([[0, 1, 128, 255]], np.float32), "tiff"),
        (np.array([[0, 1, 128, 255]], np.uint8), "png"),
    ],
)
def test_wide_and_grey_samples_are_scaled_to_8_bits(tmp_path, samples, suffix):
    Image.fromarray(samples).save(tmp_path / f"a.{suffix}")
    picture = load_picture(tmp_path / f"a.{suffix}")
    assert picture.shape == (1, 4, 3)
    np.testing.assert_array_equal(picture[0, :, 0], [0, 1, 128, 255])


def test_other_modes_become_rgb(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "cmyk.tiff")
    assert load_picture(tmp_path / "cmyk.tiff")[0, 0].tolist() == [255, 0, 0]
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert load_picture(tmp_path / "bits.png")[0, 0].tolist() == [255, 255, 255]


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert load_picture(tmp_path / "a.webp")[0, 0].tolist() == [255, 0, 0]


def test_one_pixel_loads(tmp_path):
    save_picture(tmp_path / "a.png", np.full((1, 1, 3), 9, np.uint8))
    assert load_picture(tmp_path / "a.png").tolist() == [[[9, 9, 9]]]


def test_bad_files_give_one_sentence_with_the_name(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    save_picture(tmp_path / "whole.jpg", noise)
    save_picture(tmp_path / "whole.png", noise)
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("version https://example.org\n")
    (tmp_path / "folder.png").mkdir()
    expected = {"cut.jpg": "cut off", "cut.png": "cut off", "empty.png": "0 bytes", "text.png": "not a picture"}
    for name, reason in {**expected, "folder.png": "folder"}.items():
        with pytest.raises(ValueError, match=reason) as caught:
            load_picture(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"nothing.png does not exist"):
        load_picture(tmp_path / "nothing.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"whole.png has too many pixels"):
        load_picture(tmp_path / "whole.png")


def test_save_is_exact_makes_folders_and_leaves_nothing_half(tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for suffix in (".png", ".webp", ".bmp", ".tiff"):
        save_picture(tmp_path / "new" / f"a{suffix}", picture)
        np.testing.assert_array_equal(load_picture(tmp_path / "new" / f"a{suffix}"), picture)
    save_picture(tmp_path / "grey.png", picture[..., 0])
    np.testing.assert_array_equal(load_picture(tmp_path / "grey.png")[..., 2], picture[..., 0])

    def fail(self, file, **_options):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_picture(tmp_path / "grey.png", picture)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match="suffix"):
        save_picture(tmp_path / "a.docx", picture)
    with pytest.raises(ValueError, match="float64"):
        save_picture(tmp_path / "a.png", picture / 255)
