"""Parsimonious searches corners of the ball: against the papers' search written out with a heap, and for what it ends at."""

import heapq
import math

import pytest
import torch

from luring.attacks import parsimonious
from luring.errors import InputError
from test_attacks import net, rand, randn

torch.set_num_threads(1)

X, EPS = 0.3 + 0.4 * rand(3, 2, 4, 6, seed=2), 0.1
ZERO = torch.zeros(3, dtype=torch.int64)


def model(images):
    """Wavy, and never fooled."""
    first = randn(6, images[0].numel(), seed=3)
    wave = torch.sin(3 * images.flatten(1) @ first.T) @ randn(6, seed=4)
    return torch.stack([100 - wave, wave], 1)


def margin(image):
    """Of one image."""
    logits = model(image[None])[0]
    return float(logits[1] - logits[0])


def by_the_paper(x, block, budget):
    """Algorithms 1 to 3 for one image, blocks as keys of a dictionary, gains in a heap."""
    channels, height, width = x.shape
    asked, best = 0, (-math.inf, x)

    def ask(signs, size):
        nonlocal asked, best
        if asked == budget:
            raise StopIteration
        asked += 1
        image = x.clone()
        for (c, i, j), sign in signs.items():
            image[c, i : i + size, j : j + size] += sign * EPS
        best = max(best, (margin(image), image), key=lambda pair: pair[0])
        return margin(image)

    signs = {(c, i, j): -1 for c in range(channels) for i in range(0, height, block) for j in range(0, width, block)}
    try:
        value = ask(signs, block)
        while True:
            grew = False
            for sign in (1, -1):
                left = sorted(cell for cell, s in signs.items() if s != sign)
                heap = [(-(ask({**signs, cell: sign}, block) - value), cell) for cell in left]
                heapq.heapify(heap)
                while heap and -heap[0][0] > 0:
                    _, cell = heapq.heappop(heap)
                    gain = ask({**signs, cell: sign}, block) - value
                    if gain > 0 and (not heap or gain >= -heap[0][0]):
                        signs[cell], value, grew = sign, value + gain, True
                    elif gain > 0:
                        heapq.heappush(heap, (-gain, cell))
            if block > 1:
                half = block // 2
                signs = {
                    (c, i + di, j + dj): sign
                    for (c, i, j), sign in signs.items()
                    for di in (0, half)
                    for dj in (0, half)
                    if i + di < height and j + dj < width
                }
                block = half
            elif not grew:
                break
    except StopIteration:
        pass
    return best[1], asked


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("budget", [1, 20, 100, 2000])
def test_it_is_the_papers_search(block, budget):
    found = parsimonious(model, X, ZERO, eps=EPS, budget=budget, block=block)
    for image, queries, x in zip(found.images, found.queries, X, strict=True):
        wanted, asked = by_the_paper(x, block, budget)
        assert int(queries) == asked
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-12)


def test_it_ends_where_no_single_value_helps():
    found = parsimonious(model, X, ZERO, eps=EPS, budget=10**4)
    assert (found.queries < 5000).all()
    for x, image in zip(X, found.images, strict=True):
        torch.testing.assert_close((image - x).abs(), torch.full_like(x, EPS))
        flipped = (2 * x - image)[None]
        single = torch.eye(x.numel(), dtype=torch.bool).view(-1, *x.shape)
        neighbours = torch.where(single, flipped, image)
        assert all(margin(one) <= margin(image) + 1e-9 for one in neighbours)


def test_the_worst_corner_of_a_linear_model_is_found():
    weight = randn(2, 4, 6, seed=5)

    def linear(images):
        score = (images * weight).flatten(1).sum(1)
        return torch.stack([100 - score, score], 1)

    found = parsimonious(linear, X, ZERO, eps=EPS, budget=10**4)
    torch.testing.assert_close(found.images, X + EPS * weight.sign())


def test_queries_are_counted_image_by_image_and_stop_where_the_model_is_fooled():
    x, y, shown = rand(6, 1, 6, 6, seed=4), torch.tensor([0, 3, 1, 2, 0, 1]), []

    def watched(images):
        assert not torch.is_grad_enabled()
        shown.append(len(images))
        return net()(images)

    found = parsimonious(watched, x, y, eps=0.03, budget=90)
    assert int(found.queries.sum()) == sum(shown)
    assert found.queries.max() <= 90
    assert found.fooled.any()
    assert not found.fooled.all()
    assert torch.equal(found.fooled, net()(found.images).argmax(1) != y)
    assert (found.queries[found.fooled] < 90).all()
    assert ((found.images - x).abs() <= 0.03 + 1e-9).all()


def test_a_wanted_label_is_reached():
    x, wanted = rand(4, 1, 6, 6, seed=4), torch.tensor([1, 2, 3, 0])
    found = parsimonious(net(), x, wanted, eps=0.5, budget=400, targeted=True)
    assert found.fooled.any()
    assert torch.equal(found.fooled, net()(found.images).argmax(1) == wanted)


@pytest.mark.parametrize("block", [0, 3, 6, -2])
def test_a_block_that_cannot_be_halved_down_to_a_pixel_is_refused(block):
    with pytest.raises(InputError, match="power of two"):
        parsimonious(model, X, ZERO, eps=EPS, budget=10, block=block)


def test_a_batch_of_none_is_a_batch_of_none():
    assert len(parsimonious(model, X[:0], ZERO[:0], eps=EPS, budget=10).images) == 0
