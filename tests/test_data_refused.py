"""What is wrong with a data set is said in one sentence."""

import struct
import zlib

import pytest
from PIL import Image

from folders import image_folder, integers, parquet_folder, refused
from luring.data import pictures
from luring.errors import InputError

pytestmark = pytest.mark.usefixtures("apart")


@pytest.mark.parametrize("name", ["mnits", "", "a/b?c", "csv"])
def test_unknown_name(tmp_path, name):
    refused(tmp_path, r"unknown data set .* not built in \(digits, toy\), no folder .*LURING_DATA \(which is not", name)


def test_missing_folder(tmp_path):
    refused(tmp_path, f"there is no folder {tmp_path}/nowhere", tmp_path / "nowhere")
    refused(tmp_path, r"there is no folder \./nowhere", "./nowhere")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"")
    refused(tmp_path, "is a file; give the folder", tmp_path / "x.parquet")


def test_a_pattern_is_no_folder(tmp_path):
    refused(tmp_path, "one of the characters", image_folder(tmp_path / "pets [1]"))


@pytest.mark.parametrize("file", [None, "notes.txt"])
def test_folder_without_images(tmp_path, file):
    folder = tmp_path / "empty"
    folder.mkdir()
    if file:
        (folder / file).write_text("nothing to see\n")
    refused(tmp_path, "no column 'image'" if file else "holds no images", folder)


def test_damaged_parquet(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"PAR1 and then nothing of use")
    refused(tmp_path, "bad cannot be read", folder)


def test_damaged_picture(tmp_path):
    root = image_folder(tmp_path / "pets")
    file = root / "train" / "dog" / "3.png"
    file.write_bytes(file.read_bytes()[:50])
    refused(tmp_path, rf"row 9 of the split 'train' \({file}\) cannot be decoded", root)


def test_pictures_of_different_sizes(tmp_path):
    root = image_folder(tmp_path / "pets")
    file = root / "test" / "dog" / "3.png"
    Image.new("L", (7, 4)).save(file)
    refused(tmp_path, rf"5 by 4 pixels .*cat/0\.png\) and 7 by 4 in .*\({file}\)", root)


def deep_png(colour: int, channels: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + bytes(2 * 5 * channels)) * 4
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits(tmp_path, colour, channels):
    root = image_folder(tmp_path / "pets")
    (root / "train" / "cat" / "0.png").write_bytes(deep_png(colour, channels))
    refused(tmp_path, r"0\.png\) has more than 8 bits a value", root)


def test_one_class(tmp_path):
    root = parquet_folder(tmp_path / "some", [1, 1, 1, 1], integers())
    refused(tmp_path, r"4 images of 1 class\(es\)", root)


def test_too_few_images(tmp_path):
    refused(tmp_path, "at least 3 images", image_folder(tmp_path / "pets", n=1))


def test_a_class_that_cannot_be_learned(tmp_path):
    root = image_folder(tmp_path / "pets")
    image_folder(root, classes=("emu",), splits=("test",))
    refused(tmp_path, "the class 'emu' is in the split 'test' and not in 'train'", root)


def test_no_train_split(tmp_path):
    root = image_folder(tmp_path / "pets", splits=("validation", "test"))
    refused(tmp_path, "has the splits 'validation', 'test'; name one of them 'train'", root)


def test_empty_split(tmp_path):
    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], integers())
    parquet_folder(root, [], integers(), split="test")
    refused(tmp_path, 'some: a split is empty .*"test"', root)


def test_empty_split_of_another_source(tmp_path):
    import datasets

    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], integers())
    full = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "copy"))["train"]
    with pytest.raises(InputError, match="the split 'test' is empty"):
        pictures.decode(
            {"train": full, "test": full.select([])}, image="image", label="label", where="x", progress=False
        )


def test_negative_label(tmp_path):
    root = parquet_folder(tmp_path / "some", [0, 1, 0, -1], integers())
    refused(tmp_path, r"row 3 of the split 'train' has the label -1", root)


def test_missing_label(tmp_path):
    root = parquet_folder(tmp_path / "some", [0, 1, None, 1], integers())
    refused(tmp_path, "row 2 of the split 'train' has no label in 'label'", root)


def test_missing_image(tmp_path):
    images = [None if i == 2 else Image.new("L", (3, 2)) for i in range(4)]
    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], integers(), images=images)
    refused(tmp_path, "row 2 of the split 'train' has no image", root)


@pytest.mark.parametrize("labels", [[0.0, 1.0, 0.5, 0.0], [True, False, True, False]])
def test_labels_of_another_type(tmp_path, labels):
    import datasets

    kind = "float32" if isinstance(labels[0], float) else "bool"
    root = parquet_folder(tmp_path / "some", labels, datasets.Value(kind))
    refused(tmp_path, rf"'label' holds Value\({kind!r}\), which are no labels", root)


def test_labels_that_are_no_indices(tmp_path):
    root = parquet_folder(tmp_path / "some", [10_000_000_000, 1, 7, 0], integers())
    refused(tmp_path, "goes up to 10000000000 in 4 images", root)


def test_images_that_are_none(tmp_path):
    import datasets

    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], integers(), list("abcd"), datasets.Value("string"))
    refused(tmp_path, r"'image' holds Value\('string'\), not images", root)


def test_splits_with_other_class_names(tmp_path):
    import datasets

    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], datasets.ClassLabel(names=["a", "b"]))
    tables = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "copy"))
    other = tables["train"].cast_column("label", datasets.ClassLabel(names=["b", "a"]))
    with pytest.raises(InputError, match="name the classes in 'label' differently"):
        pictures.decode(
            {"train": tables["train"], "test": other}, image="image", label="label", where="x", progress=False
        )
