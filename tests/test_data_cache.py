"""Decoded images are kept, never believed too long, and stay on the disk where they are many."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from folders import cached, image_folder, parts, quiet, same
from luring import data, rooms
from luring.data import cache, decoded, pictures
from luring.errors import InputError

pytestmark = pytest.mark.usefixtures("apart")


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
    assert cache.place() == Path(folder)


def test_the_second_load_neither_decodes_nor_imports_datasets(tmp_path):
    root = image_folder(tmp_path / "pets")
    first = quiet(root)
    assert len(cached(tmp_path)) == 1
    program = (
        "import sys; from luring.data import load; d = load(sys.argv[1]); "
        "assert 'datasets' not in sys.modules; print(d.digest, d.classes)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == f"{first.digest} {first.classes}"
    assert done.stderr == ""


def test_the_cache_gives_the_same(tmp_path, monkeypatch):
    root = image_folder(tmp_path / "pets", modes=("RGB", "L"))
    first = quiet(root)
    monkeypatch.setattr(pictures, "decode", None)
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
    decode = pictures.decode

    def slow(*arguments, **settings):
        (root / "late.txt").write_text("arrived while decoding")
        return decode(*arguments, **settings)

    monkeypatch.setattr(pictures, "decode", slow)
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
    cache.write(file, whole)
    content = bytearray(file.read_bytes())
    content[draw.draw(st.integers(0, len(content) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    file.write_bytes(content)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        found = cache.read(file)
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

    monkeypatch.setattr(cache, "save_file", stopped)
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
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
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
