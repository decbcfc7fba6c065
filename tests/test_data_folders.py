"""Folders of pictures and of parquet files: channels, sizes, splits, labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from folders import image_folder, integers, loose, parquet_folder, parts, quiet, refused, same
from luring import data
from luring.data import decoded, load
from luring.errors import InputError

pytestmark = pytest.mark.usefixtures("apart")


def test_grey_image_folder(tmp_path):
    found = quiet(image_folder(tmp_path / "pets", splits=("train",), n=10))
    assert found.shape == (1, 4, 5)
    assert found.classes == ("cat", "dog")
    assert [len(part.labels) for part in parts(found)] == [14, 3, 3]
    everything = {bytes(image.numpy().tobytes()) for part in parts(found) for image in part.images}
    files = {np.asarray(Image.open(file)).tobytes() for file in (tmp_path / "pets").rglob("*.png")}
    assert everything == files


@pytest.mark.parametrize("modes", [("L", "RGB"), ("RGB",), ("P", "L"), ("RGBA", "L"), ("LA",), ("1", "P")])
def test_modes(tmp_path, modes):
    """One picture with colours makes all of them RGB; each keeps its own values."""
    root = image_folder(tmp_path / "pets", modes=modes)
    found = quiet(root)
    assert found.shape == (3, 4, 5)
    expected = {
        np.asarray(Image.open(file).convert("RGB")).transpose(2, 0, 1).tobytes() for file in root.rglob("test/*/*.png")
    }
    assert {image.numpy().tobytes() for image in found.test.images} == expected


def test_colour_in_the_last_split_only(tmp_path):
    image_folder(tmp_path / "pets", splits=("train",))
    image_folder(tmp_path / "pets", splits=("test",), modes=("RGB",))
    found = quiet(tmp_path / "pets")
    assert {part.images.shape[1] for part in parts(found)} == {3}
    assert torch.equal(found.train.images[:, 0], found.train.images[:, 2])
    assert all(part.images.is_contiguous() for part in parts(found))


def test_palette_with_transparency(tmp_path):
    root = image_folder(tmp_path / "pets")
    picture = Image.new("P", (5, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(root / "test" / "cat" / "0.png", transparency=b"\x00\x80")
    assert [10, 20, 30] in quiet(root).test.images[:, :, 0, 0].tolist()


def test_black_and_white_is_grey(tmp_path):
    found = quiet(image_folder(tmp_path / "pets", modes=("1", "L")))
    assert found.shape == (1, 4, 5)


def test_orientation_is_followed(tmp_path):
    root = image_folder(tmp_path / "pets", size=(4, 4))
    picture = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(root / "test" / "cat" / "0.png", exif=exif)
    assert list(reversed(range(16))) in quiet(root).test.images.flatten(1).tolist()


def test_seeded_split_of_a_folder(tmp_path):
    root = image_folder(tmp_path / "pets", n=20)
    assert same(quiet(root, seed=4), quiet(root, seed=4))
    assert not same(quiet(root, seed=4), quiet(root, seed=5))
    assert quiet(root, seed=4).digest == quiet(root, seed=5).digest


def test_validation_and_test_of_the_source_are_used(tmp_path):
    found = quiet(image_folder(tmp_path / "pets", splits=("train", "validation", "test")))
    assert [len(part.labels) for part in parts(found)] == [12, 12, 12]


def test_validation_without_test_is_the_test_part(tmp_path):
    root = image_folder(tmp_path / "pets", splits=("train", "validation"))
    found = quiet(root)
    assert [len(part.labels) for part in parts(found)] == [10, 2, 12]
    files = {np.asarray(Image.open(file)).tobytes() for file in root.rglob("validation/*/*.png")}
    assert {image.numpy().tobytes() for image in found.test.images} == files


def test_one_split_of_any_name_is_divided(tmp_path):
    found = quiet(image_folder(tmp_path / "pets", splits=("test",), n=10))
    assert [len(part.labels) for part in parts(found)] == [14, 3, 3]


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        ([0, 2, 1, 0, 2, 1, 0, 1], "int64", ("0", "1", "2")),
        ([0, 3, 1, 0, 3, 1, 0, 1], "uint8", ("0", "1", "2", "3")),
        (["b", "a", "b", "a", "b", "a"], "string", ("a", "b")),
        ([1, 0, 1, 0, 1, 0], None, ("no", "yes")),
    ],
)
def test_parquet_folder(tmp_path, labels, kind, classes):
    import datasets

    feature = datasets.Value(kind) if kind else datasets.ClassLabel(names=list(classes))
    found = quiet(parquet_folder(tmp_path / "some", labels, feature))
    assert found.classes == classes
    truth = [classes.index(label) if isinstance(label, str) else label for label in labels]
    together = [
        (int(x[0, 0, 0]), int(y)) for part in parts(found) for x, y in zip(part.images, part.labels, strict=True)
    ]
    assert sorted(together) == list(enumerate(truth))


def test_other_columns(tmp_path):
    import datasets

    root = parquet_folder(tmp_path / "some", [0, 1, 0, 1], integers())
    table = datasets.load_dataset(str(root), cache_dir=str(tmp_path / "copy"))["train"]
    table.rename_columns({"image": "img", "label": "fine"}).to_parquet(str(root / "train-00000-of-00001.parquet"))
    with pytest.raises(InputError, match="no column 'image' in the split 'train', which has 'img', 'fine'"):
        quiet(root)
    with pytest.raises(InputError, match="no column 'label' in the split 'train', which has 'img', 'fine'"):
        quiet(root, image="img")
    assert quiet(root, image="img", label="fine").classes == ("0", "1")


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    quiet(image_folder(tmp_path / "pets"))
    with pytest.raises(InputError):
        quiet(image_folder(tmp_path / "one", n=1, splits=("train",)))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_progress_is_shown_where_wanted(tmp_path, capfd):
    root = image_folder(tmp_path / "pets")
    load(str(root))
    shown = capfd.readouterr()
    assert "decoding pets" in shown.err
    assert "24/24" in shown.err
    assert "Generating" not in shown.err
    quiet(root, cache=tmp_path / "other")
    assert capfd.readouterr() == ("", "")


def test_folder_without_classes_has_no_labels(tmp_path):
    root = loose(tmp_path / "loose", [(4, 4)] * 12)
    found = quiet(root)
    assert found.classes == ()
    assert [len(part.labels) for part in parts(found)] == [8, 2, 2]
    assert all((part.labels == decoded.UNKNOWN).all() for part in parts(found))
    assert sorted(int(x[0, 0, 0]) for part in parts(found) for x in part.images) == list(range(12))
    assert same(found, quiet(root)), "from the cache"
    classes = image_folder(tmp_path / "pets")
    assert quiet(classes, label="none").classes == ()
    assert quiet(classes).classes == ("cat", "dog")
    with pytest.raises(InputError, match="2 images; at least 3"):
        quiet(loose(tmp_path / "two", [(4, 4)] * 2))


@pytest.mark.parametrize("sizes", [[(9, 5), (40, 8), (5, 30)] * 2, [(30, 12)] * 6])
def test_pictures_of_any_size_are_brought_to_one(tmp_path, sizes):
    root, to = loose(tmp_path / "loose", sizes), data.Scaling(6, 8)
    found = quiet(root, taken=data.Taken(to))
    assert (found.shape, found.scaling) == ((1, 6, 8), to)
    assert quiet(root, taken=data.Taken(to)).scaling == to, "from the cache"
    for part in parts(found):
        assert all(x.unique().numel() == 1 for x in part.images)


def test_pictures_of_one_small_size_are_left_alone_unless_asked(tmp_path):
    root, to = loose(tmp_path / "loose", [(5, 4)] * 6), data.Scaling(8, 8)
    kept = quiet(root, taken=data.Taken(to))
    assert (kept.shape, kept.scaling) == ((1, 4, 5), None)
    assert quiet(root, taken=data.Taken(to, always=True)).shape == (1, 8, 8)


def test_a_picture_turned_by_its_camera_is_of_its_turned_size(tmp_path):
    root = loose(tmp_path / "loose", [(5, 4)] * 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (4, 5)).save(root / "000.png", exif=exif)
    assert quiet(root, taken=data.Taken(data.Scaling(9, 9))).scaling is None


def test_damaged_pictures_are_counted_named_and_left_out(tmp_path, caplog):
    root = image_folder(tmp_path / "pets", splits=("train",), n=60)
    file = root / "train" / "dog" / "3.png"
    whole = quiet(root)
    file.write_bytes(file.read_bytes()[:50])
    found = quiet(root)
    assert len(found.damaged) == 1
    assert found.damaged[0].endswith(f" of the split 'train' ({file})")
    assert f"1 of 120 pictures cannot be decoded and were left out: {found.damaged[0]}" in caplog.text
    assert sum(len(part.labels) for part in parts(found)) == 119
    assert sum(int((part.labels == 1).sum()) for part in parts(found)) == 59
    assert found.digest != whole.digest
    caplog.clear()
    assert same(quiet(root), found)
    assert "1 of 120" in caplog.text, "also from the cache"
    second = root / "train" / "dog" / "4.png"
    second.write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be decoded .*, as 1 before it; at most 1\.0% of the pictures may be"):
        quiet(root)
    assert len(quiet(root, taken=data.Taken(damaged=0.02)).damaged) == 2


@pytest.mark.parametrize(("training", "others"), [("train", ("test",)), ("training-2024", ("val", "test"))])
def test_splits_without_class_folders_have_no_labels(tmp_path, training, others):
    root = tmp_path / "loose"
    root.mkdir()
    for at, split in enumerate((training, *others)):
        loose(root / split, [(4, 4)] * 12, first=20 * at)
    found = quiet(root)
    assert found.classes == ()
    assert all((part.labels == decoded.UNKNOWN).all() for part in parts(found))
    expected = [sorted(range(20 * at, 20 * at + 12)) for at in range(1 + len(others))]
    values = [sorted(int(x[0, 0, 0]) for x in part.images) for part in parts(found)]
    train, validation, test = values
    assert test == expected[-1]
    if len(others) == 2:
        assert (train, validation) == (expected[0], expected[1])
    else:
        assert sorted(train + validation) == expected[0]
    assert same(found, quiet(root)), "from the cache"
    assert found.digest == quiet(root, label="none").digest


def test_one_class_folder_a_split_has_no_labels(tmp_path):
    assert quiet(image_folder(tmp_path / "pets", classes=("cat",))).classes == ()


@pytest.mark.parametrize(
    ("labelled", "bare"), [("train", "test"), ("test", "train"), ("train", "train"), ("train/cat", "train/cat")]
)
def test_pictures_beside_class_folders_are_refused_unless_labels_are_not_wanted(tmp_path, labelled, bare):
    """`datasets` would drop every label without a word."""
    root = image_folder(tmp_path / "pets", splits=(labelled,))
    (root / bare).mkdir(exist_ok=True)
    for at in range(3):
        Image.new("L", (5, 4), at).save(root / bare / f"{at}.png")
    match = rf"pets: {labelled}/(cat|dog)/\d\.png lies in more folders than {bare}/\d\.png, .* \(--label none\)\.$"
    refused(tmp_path, match, root)
    assert quiet(root, label="none").classes == ()


def test_class_folders_that_the_training_part_has_not_are_refused(tmp_path):
    root = image_folder(tmp_path / "pets", splits=("test",))
    image_folder(root, classes=("cat",), splits=("train",))
    refused(tmp_path, "split 'train' lie in one folder and those of 'test' in 2; make a folder for each", root)


def test_a_table_beside_the_pictures_says_their_labels(tmp_path):
    import datasets

    root = tmp_path / "told"
    root.mkdir()
    datasets.disable_progress_bars()
    for split in ("train", "test"):
        loose(root / split, [(4, 4)] * 6)
        told = {"file_name": [f"{i:03}.png" for i in range(6)], "label": ["cat", "dog"] * 3}
        datasets.Dataset.from_dict(told).to_parquet(str(root / split / "metadata.parquet"))
    datasets.enable_progress_bars()
    assert quiet(root).classes == ("cat", "dog")
