"""What needs no folder: the built-in sets, the parts that a seed gives, values and classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folders import image_folder, loose, parts, quiet, same
from luring import data
from luring.data import check, decoded, load, to_float, toy_zones
from luring.data import parts as parts_of
from luring.errors import InputError

pytestmark = pytest.mark.usefixtures("apart")


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
    kept, out = parts_of.divided(numbered, 0.17, 3)
    assert len(out.labels) == 34
    assert sorted(torch.cat([kept.labels, out.labels]).tolist()) == list(range(200))
    for part in (kept, out):
        assert part.labels.tolist() == sorted(part.labels.tolist()) == part.images.flatten().tolist()


@given(n=st.integers(3, 300), share=st.floats(0.01, 0.5), seed=st.integers(0, 2**32 - 1))
def test_no_part_is_empty(n, share, seed):
    numbered = decoded.Split(torch.zeros(n, 1, 1, 1), torch.arange(n))
    kept, out = parts_of.divided(numbered, share, seed)
    assert min(len(kept.labels), len(out.labels)) >= 1
    assert set(kept.labels.tolist()).isdisjoint(out.labels.tolist())


def test_a_seed_gives_the_same_parts_on_every_machine():
    # Written down once; a change here is a change of every result that names a seed.
    numbered = decoded.Split(torch.zeros(20, 1, 1, 1), torch.arange(20))
    assert parts_of.divided(numbered, 0.15, 0)[1].labels.tolist() == [1, 18, 19]
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
