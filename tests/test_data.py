import io
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from luring import data, decoded, rooms
from luring.data import check, load, to_float, toy_zones
from luring.errors import InputError

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    """No test sees the caches or the data of whoever runs it, nor the hub."""
    monkeypatch.setenv("LURING_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LURING_DATA", raising=False)


def image_folder(root: Path, modes=("L",), classes=("cat", "dog"), splits=("train", "test"), n=6, size=(5, 4)) -> Path:
    """PNG files of random pixels, `n` a class, their modes in turn."""
    draw = np.random.RandomState(0)
    for split in splits:
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture = Image.fromarray(draw.randint(0, 256, (size[1], size[0], 3), dtype=np.uint8))
                picture.convert(modes[i % len(modes)]).save(folder / f"{i}.png")
    return root


def parquet_folder(root: Path, labels, feature, images=None, image_feature=None, split="train") -> Path:
    import datasets

    if images is None:
        images = [Image.new("L", (3, 2), i) for i in range(len(labels))]
    features = datasets.Features({"image": image_feature or datasets.Image(), "label": feature})
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    root.mkdir(exist_ok=True)
    datasets.disable_progress_bars()
    table.to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    datasets.enable_progress_bars()
    return root


def integers():
    import datasets

    return datasets.Value("int64")


def quiet(name, **settings):
    return load(str(name), progress=False, **settings)


def parts(dataset):
    return dataset.train, dataset.validation, dataset.test


def same(one, other) -> bool:
    pairs = zip(parts(one), parts(other), strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*"))


# built-in sets


def test_digits_are_the_digits_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits = load("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert [len(part.labels) for part in parts(digits)] == [1267, 260, 270]
    images = torch.cat([part.images for part in parts(digits)])
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    source = load_digits()
    rows = sorted(
        zip((images * 16).flatten(1).tolist(), torch.cat([p.labels for p in parts(digits)]).tolist(), strict=True)
    )
    assert rows == sorted(zip(source.data.tolist(), source.target.tolist(), strict=True))


def test_parts_are_disjoint_and_keep_their_order():
    numbered = decoded.Split(torch.arange(200, dtype=torch.uint8).reshape(-1, 1, 1, 1), torch.arange(200))
    kept, out = data._hold_out(numbered, 0.17, 3)
    assert len(out.labels) == 34
    assert sorted(torch.cat([kept.labels, out.labels]).tolist()) == list(range(200))
    for part in (kept, out):
        assert part.labels.tolist() == sorted(part.labels.tolist()) == part.images.flatten().tolist()


@given(n=st.integers(3, 300), share=st.floats(0.01, 0.5), seed=st.integers(0, 2**32 - 1))
def test_no_part_is_empty(n, share, seed):
    numbered = decoded.Split(torch.zeros(n, 1, 1, 1), torch.arange(n))
    kept, out = data._hold_out(numbered, share, seed)
    assert min(len(kept.labels), len(out.labels)) >= 1
    assert set(kept.labels.tolist()).isdisjoint(out.labels.tolist())


def test_a_seed_gives_the_same_parts_on_every_machine():
    # Written down once; a change here is a change of every result that names a seed.
    numbered = decoded.Split(torch.zeros(20, 1, 1, 1), torch.arange(20))
    assert data._hold_out(numbered, 0.15, 0)[1].labels.tolist() == [1, 18, 19]
    assert load("digits").digest.startswith("331cc418")
    assert load("toy").digest.startswith("b4c1366d")


@pytest.mark.parametrize("name", ["digits", "toy"])
def test_seed(name):
    assert same(load(name, seed=1), load(name, seed=1))
    assert not same(load(name, seed=1), load(name, seed=2))
    assert (load(name, seed=1).digest == load(name, seed=2).digest) == (name == "digits")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(InputError, match=f"seed {seed} is out of range"):
        load("toy", seed=seed)


def test_toy_zones_are_three_quadrants():
    zones = toy_zones()
    assert zones.shape == (3, 12, 12)
    assert zones.sum(dim=(1, 2)).tolist() == [36, 36, 36]
    assert zones.sum(dim=0).max() == 1
    assert zones[0, 0, 0]
    assert zones[1, 0, 11]
    assert zones[2, 11, 0]
    assert not zones[:, 6:, 6:].any()


def test_toy_is_uniform_in_the_zone_of_its_class_and_0_elsewhere():
    toy = load("toy", seed=5)
    assert toy.shape == (1, 12, 12)
    assert [len(part.labels) for part in parts(toy)] == [2490, 510, 600]
    images, labels = (torch.cat([getattr(part, what) for part in parts(toy)]) for what in ("images", "labels"))
    assert labels.bincount().tolist() == [1200, 1200, 1200]
    inside = toy_zones()[labels].unsqueeze(1)
    assert (images[~inside] == 0).all()
    values = images[inside]
    assert 0.3 <= values.min() < 0.3001
    assert 0.6999 < values.max() <= 0.7
    # Uniform: the largest distance of the empirical distribution function (Kolmogorov) at 1 % is 1.63 / sqrt(n).
    ranks = torch.linspace(0, 1, len(values), dtype=torch.float64)
    assert ((values.double().sort().values - 0.3) / 0.4 - ranks).abs().max() < 1.63 / len(values) ** 0.5


# values


def test_to_float():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert to_float(images).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert images.flatten().tolist() == [0, 51, 255]
    already = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    assert to_float(already) is already


def test_check_leaves_good_images_alone():
    for images in (torch.rand(2, 1, 3, 3), torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.ones(1, 3, 1, 1)):
        assert torch.equal(check(images), images)


def test_check_forgives_rounding_and_takes_it_away():
    images = torch.tensor([-3e-8, 1 + 1e-7]).reshape(1, 1, 1, 2)
    assert check(images).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, 255])
def test_check_names_the_image_that_is_wrong(value):
    images = torch.full((4, 3, 2, 2), 0.5)
    images[2, 1, 0, 1] = value
    with pytest.raises(InputError, match=rf"image 2 has the value {value:g}"):
        check(images)


@pytest.mark.parametrize("images", [torch.rand(3, 4, 4), torch.rand(0, 1, 4, 4), torch.zeros(1, 1, 2, 2).long()])
def test_check_refuses_what_are_no_images(images):
    with pytest.raises(InputError, match="give"):
        check(images)


# folders


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


# the cache


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"LURING_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"LURING_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/luring"),
        ({"LURING_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/luring"),
    ],
)
def test_where_the_cache_is(monkeypatch, variables, folder):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert data._cache() == Path(folder)


def test_the_second_load_neither_decodes_nor_imports_datasets(tmp_path):
    root = image_folder(tmp_path / "pets")
    first = quiet(root)
    assert len(cached(tmp_path)) == 1
    program = (
        "import sys; from luring.data import load; d = load(sys.argv[1]); "
        "assert 'datasets' not in sys.modules; print(d.digest, d.classes)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == f"{first.digest} {first.classes}"
    assert done.stderr == ""


def test_the_cache_gives_the_same(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "pets", modes=("RGB", "L"))
    first = quiet(root)
    monkeypatch.setattr(decoded, "decode", None)
    second = quiet(root)
    assert same(first, second)
    assert (first.classes, first.digest) == (second.classes, second.digest)


def test_the_cache_is_not_believed_when_the_source_changed(tmp_path):
    """Not even where the file has the same name, size and time."""
    root = image_folder(tmp_path / "pets")
    file = root / "test" / "cat" / "0.png"
    sizes = {}
    for value in range(256):  # two grey pictures whose files have one length
        written = io.BytesIO()
        Image.new("L", (5, 4), value).save(written, "PNG")
        sizes.setdefault(len(written.getvalue()), []).append((value, written.getvalue()))
    (one, first), (other, second) = next(some for some in sizes.values() if len(some) > 1)[:2]
    file.write_bytes(first)
    before = file.stat()
    assert one in quiet(root).test.images[:, 0, 0, 0].tolist()
    file.write_bytes(second)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    found = quiet(root).test.images
    assert ((found == other).flatten(1).all(dim=1)).any()
    assert not ((found == one).flatten(1).all(dim=1)).any()


def test_moving_a_picture_to_another_class_is_a_change(tmp_path):
    root = image_folder(tmp_path / "pets")
    before = quiet(root)
    (root / "test" / "cat" / "0.png").rename(root / "test" / "dog" / "x.png")
    assert quiet(root).test.labels.bincount().tolist() == [5, 7]
    assert quiet(root).digest != before.digest


def test_a_source_that_changes_while_it_is_read_is_not_kept(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "pets")
    decode = decoded.decode

    def slow(*arguments, **settings):
        (root / "late.txt").write_text("arrived while decoding")
        return decode(*arguments, **settings)

    monkeypatch.setattr(decoded, "decode", slow)
    quiet(root)
    assert cached(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "header", "text", "other"])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    root = image_folder(tmp_path / "pets")
    first = quiet(root)
    (file,) = cached(tmp_path)
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    other = struct.pack("<Q", 2) + b"{}"
    bad = {"cut": good[:-7], "empty": b"", "flipped": bytes(flipped), "header": b"\xff" * 8 + good[8:]}
    bad |= {"text": b"not a safetensors file at all", "other": other}
    file.write_bytes(bad[damage])
    with pytest.warns(RuntimeWarning, match="cannot be used and is made anew") as seen:
        again = quiet(root)
    assert len(seen) == 1
    assert "\n" not in str(seen[0].message)
    assert same(first, again)
    assert file.read_bytes() == good


@given(st.data())
def test_no_damage_goes_unseen(tmp_path_factory, draw):
    file = tmp_path_factory.mktemp("kept") / "x.safetensors"
    split = decoded.Split(torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2), torch.tensor([0, 1]))
    whole = decoded.gather({"train": split}, ("a", "b"))
    decoded.write(file, whole)
    content = bytearray(file.read_bytes())
    content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    file.write_bytes(content)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = decoded.read(file)
    # A flipped space in the padding or the name of an unused key changes nothing that is read.
    assert found is None or found.digest == whole.digest


def test_the_file_runs_no_code_and_says_what_it_holds(tmp_path):
    found = quiet(image_folder(tmp_path / "pets"))
    content = cached(tmp_path)[0].read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    about = json.loads(header["__metadata__"]["luring"])
    assert about == {"splits": ["train", "test"], "classes": ["cat", "dog"], "digest": found.digest}
    assert header["train.images"]["dtype"] == "U8"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    root = image_folder(tmp_path / "pets")
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="could not be kept") as seen:
        found = quiet(root)
    assert len(seen) == 1
    assert found.shape == (1, 4, 5)


def test_a_write_that_stops_half_way_leaves_nothing(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "pets")

    def stopped(_, path, **__):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(decoded, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        quiet(root)
    assert cached(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        root = image_folder(tmp_path / "pets", size=(100, 100))
        with pytest.warns(RuntimeWarning, match=r"could not be kept.*No space left"):
            found = quiet(root, cache=disk)
        assert found.shape == (1, 100, 100)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# what is wrong is said


def refused(tmp_path, match, name, **settings):
    with pytest.raises(InputError, match=match) as said:
        quiet(name, **settings)
    assert "\n" not in str(said.value)
    assert str(said.value).endswith(".")
    assert cached(tmp_path) == []


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


def loose(root, sizes, mode="L"):
    """A folder of pictures without class folders."""
    root.mkdir()
    for i, size in enumerate(sizes):
        Image.new(mode, size, i).save(root / f"{i:03}.png")
    return root


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


@pytest.mark.parametrize("names", [None, ("no", "yes", "dog", "cat")])
def test_without_labels_a_targets_answers_take_their_place(tmp_path, names):
    found = quiet(loose(tmp_path / "loose", [(4, 4)] * 12))
    model = lambda x: torch.stack([x[:, 0, 0, 0] * k for k in (-1.0, 1.0, 2.0, -2.0)], 1)  # noqa: E731
    answered = data.matched(found, model, names)
    assert answered.name == found.name + data.ANSWERED
    assert answered.classes == (names or ("0", "1", "2", "3"))
    for before, part in zip(parts(found), parts(answered), strict=True):
        assert torch.equal(part.labels, model(to_float(before.images)).argmax(1))


def test_classes_are_matched_by_name_and_else_by_number(tmp_path):
    found = quiet(image_folder(tmp_path / "pets"))

    def of(classes):
        return lambda x: torch.zeros(len(x), classes)

    by_name = data.matched(found, of(4), ("dog", "eel", "fox", "cat"))
    assert by_name.classes == ("dog", "eel", "fox", "cat")
    assert torch.equal(by_name.test.labels, torch.tensor([3, 0])[found.test.labels])
    assert data.matched(found, of(2), None) is found
    assert data.matched(found, of(2), ("LABEL_0", "LABEL_1")) is found
    with pytest.raises(InputError, match="2 classes and the target answers with 4"):
        data.matched(found, of(4), ("dog", "eel", "fox", "gnu"))


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
        decoded.decode(
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
        decoded.decode(
            {"train": tables["train"], "test": other}, image="image", label="label", where="x", progress=False
        )


# the hub, which no test reaches


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that holds one data set; what is asked of it is written down."""
    import datasets

    asked = []
    source = image_folder(tmp_path / "source")

    def load_dataset(hub_id, config):
        asked.append((hub_id, config, datasets.config.HF_HUB_OFFLINE))
        found = real(str(source), cache_dir=str(tmp_path / "arrow"))
        return found.rename_column("image", "img") if hub_id == "uoft-cs/cifar10" else found

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return asked


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist", ("ylecun/mnist", None)),
        ("fashion_mnist", ("zalando-datasets/fashion_mnist", None)),
        ("svhn", ("ufldl-stanford/svhn", "cropped_digits")),
        ("cifar10", ("uoft-cs/cifar10", None)),
        ("someone/pets", ("someone/pets", None)),
    ],
)
def test_hub(hub, tmp_path, monkeypatch, name, expected):
    first = quiet(name)
    assert hub == [(*expected, False)]
    assert (first.name, first.shape) == (name, (1, 4, 5))
    assert len(cached(tmp_path)) == 1
    monkeypatch.setattr(decoded, "decode", None)
    assert same(first, quiet(name))


def test_hub_not_reached_but_downloaded_before(hub, monkeypatch):
    import datasets

    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    assert quiet("mnist").shape == (1, 4, 5)
    assert hub == [("ylecun/mnist", None, True)]
    assert not datasets.config.HF_HUB_OFFLINE


def test_hub_not_reached(tmp_path, monkeypatch):
    def fail(*_, **settings):
        assert settings["timeout"] <= 5
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    monkeypatch.setenv("LURING_DATA", str(tmp_path))
    message = rf"unknown data set 'no-one/nothing'.*LURING_DATA \({tmp_path}\), and the hub could not be.*\(no route\)"
    refused(tmp_path, message, "no-one/nothing")


def test_hub_does_not_know_it(tmp_path, monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    def fail(*_, **__):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    refused(tmp_path, "the hub has no public someone/pets", "someone/pets")


@pytest.mark.usefixtures("hub")
def test_hub_gives_an_error(tmp_path, monkeypatch):
    import datasets

    def fail(*_):
        raise ValueError("Config name is missing.\nPlease pick one")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    refused(tmp_path, r"someone/pets could not be loaded from the hub \(Config name is missing\.\)", "someone/pets")


# LURING_DATA


def test_folders_under_luring_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LURING_DATA", str(tmp_path / "data"))
    image_folder(tmp_path / "data" / "mnist")
    image_folder(tmp_path / "data" / "pets", size=(3, 3))
    assert quiet("mnist").shape == (1, 4, 5)
    assert quiet("pets").shape == (1, 3, 3)
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "mnist", size=(2, 2))
    assert quiet("mnist").shape == (1, 4, 5)
    assert quiet("./mnist").shape == (1, 2, 2)


ROOT = os.environ.get("LURING_DATA")
real_images = pytest.mark.skipif(not ROOT, reason="LURING_DATA, the folder of real images, is not set")


@pytest.mark.real_images
@real_images
@pytest.mark.parametrize(
    ("name", "shape", "train", "test"),
    [("mnist", (1, 28, 28), 60_000, 10_000), ("svhn", (3, 32, 32), 10_854, 1_952)],
)
def test_real_images(monkeypatch, name, shape, train, test):
    monkeypatch.setenv("LURING_DATA", str(ROOT))
    found = quiet(name)
    assert found.shape == shape
    assert len(found.train.labels) + len(found.validation.labels) == train
    assert len(found.validation.labels) == round(train * 0.17)
    assert len(found.test.labels) == test
    assert len(found.classes) == 10
    if name == "mnist":
        assert found.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert found.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


# larger than memory

LARGE = """
import sys, threading, time
from pathlib import Path
import torch
from torch import nn
from luring import answers, data, rooms, training
from luring.schedule import Schedule

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

def use(folder):
    found = data.load(folder, progress=False)
    torch.manual_seed(0)
    lure = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())
    target = nn.Sequential(nn.AvgPool2d(40), nn.Flatten(), nn.LazyLinear(2)).eval()
    target(torch.rand(1, *found.shape))
    training.lure(lure, target, found.train.images, found.validation.images, schedule=Schedule(6, 2), show=False)
    return found

use(sys.argv[1])  # libraries and their pools
rooms.IN_MEMORY = rooms.CHUNK = int(sys.argv[3])
answers.VALUES = 2**19
before, highest = anonymous(), 0

def watch():
    global highest
    while True:
        highest = max(highest, anonymous())
        time.sleep(0.001)

threading.Thread(target=watch, daemon=True).start()
found = use(sys.argv[2])
highest = max(highest, anonymous())
print(highest - before, found.digest, [len(split.labels) for split in (found.train, found.validation, found.test)])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_data_set_larger_than_memory_stays_on_the_disk(tmp_path):
    """37 MiB of pictures are decoded, divided and trained on in a few; the same digests and parts as in memory."""
    draw = np.random.RandomState(0)
    for name, n in (("small", 8), ("big", 256)):
        for label in ("cat", "dog"):
            (tmp_path / name / label).mkdir(parents=True)
            for i in range(n):
                picture = draw.randint(0, 256, (160, 160, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / name / label / f"{i}.bmp")
    whole = quiet(tmp_path / "big", cache=tmp_path / "in memory")
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", LARGE, str(tmp_path / "small"), str(tmp_path / "big"), str(2**22)]
    for _ in range(2):  # decoded, then from the cache
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        grown, digest, counts = done.stdout.split(" ", 2)
        assert int(grown) < 20
        assert digest == whole.digest
        assert counts.strip() == str([len(split.labels) for split in parts(whole)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "IN_MEMORY", 2**22)
        found = quiet(tmp_path / "big")
    assert same(found, whole)
    found.train.images[0] = 0  # stays in memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "IN_MEMORY", 2**22)
        assert same(quiet(tmp_path / "big"), whole)


@pytest.mark.parametrize("modes", [("L",), ("L", "RGB"), ("RGB", "L")])
def test_on_the_disk_is_as_in_memory(tmp_path, monkeypatch, modes):
    root = image_folder(tmp_path / "pets", modes=modes, splits=("train",))
    (root / "train" / "cat" / "3.png").write_bytes(b"torn")
    taken = data.Taken(damaged=0.2)
    whole = quiet(root, taken=taken, cache=tmp_path / "in memory")
    monkeypatch.setattr(rooms, "IN_MEMORY", 0)
    monkeypatch.setattr(rooms, "CHUNK", 50)
    for _ in range(2):
        found = quiet(root, taken=taken)
        assert same(found, whole)
        assert (found.digest, found.damaged) == (whole.digest, whole.damaged)
    assert len(cached(tmp_path)) == 2  # the source, and its parts


def test_a_disk_too_small_for_the_images_is_told_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "IN_MEMORY", 0)
    with pytest.raises(InputError, match=r"GiB of decoded images do not fit on the disk of .*LURING_CACHE"):
        rooms.room((2**50,), tmp_path)
    assert list(tmp_path.iterdir()) == []
