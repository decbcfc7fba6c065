from math import isnan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luring import metrics

torch.set_num_threads(1)

TRIPLES = st.lists(st.tuples(*(st.integers(0, 3),) * 3), max_size=30)
NONE = torch.zeros(0, dtype=torch.int64)


def vectors(triples):
    return torch.tensor(triples, dtype=torch.int64).reshape(-1, 3).unbind(1)


def share(hits):
    return sum(hits) / len(hits) if hits else float("nan")


def same(found, expected):
    return (isnan(found) and isnan(expected)) or found == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(TRIPLES)
def test_all_against_a_loop(triples):
    m, mop, truth = vectors(triples)
    assert same(metrics.accuracy(m, truth), share([a == t for a, _, t in triples]))
    assert same(metrics.agreement(m, mop, truth), share([a == b == t for a, b, t in triples]))
    assert same(metrics.disagreement(m, mop), share([a != b for a, b, _ in triples]))
    fooling = [(a, b, t) for a, b, t in triples if b != t]
    assert same(metrics.detection_rate(m, mop, truth), share([a != b for a, b, _ in fooling]))
    assert same(metrics.adequation_rate(m, mop, truth), share([a == t for a, _, t in fooling]))
    dac = metrics.detection_adversarial_accuracy(m, mop, truth)
    assert same(dac, share([a == t or a != b for a, b, t in triples]))


@settings(max_examples=200, deadline=None)
@given(TRIPLES.filter(bool))
def test_identities(triples):
    m, mop, truth = vectors(triples)
    ac_m, dac = metrics.accuracy(m, truth), metrics.detection_adversarial_accuracy(m, mop, truth)
    assert dac >= ac_m
    # DAC adds to AC_M the examples on which M is wrong otherwise than M∘P.
    assert dac == pytest.approx(ac_m + share([a != t and a != b for a, b, t in triples]))
    # What is neither agreed and right nor rejected is agreed and wrong.
    lost = share([a == b != t for a, b, t in triples])
    assert metrics.agreement(m, mop, truth) + metrics.disagreement(m, mop) + lost == pytest.approx(1)
    assert dac == pytest.approx(1 - lost)
    dr, adq = metrics.detection_rate(m, mop, truth), metrics.adequation_rate(m, mop, truth)
    assert isnan(dr) or dr >= adq
    ac_mop = metrics.accuracy(mop, truth)
    if ac_mop < 1:
        assert dac == pytest.approx(ac_mop + (1 - ac_mop) * dr)
        assert ac_m == pytest.approx(metrics.agreement(m, mop, truth) + (1 - ac_mop) * adq)


def test_nothing_to_divide_by_is_nan():
    right = torch.tensor([1, 2])
    assert isnan(metrics.detection_rate(right, right, right))
    assert isnan(metrics.adequation_rate(right, right, right))
    assert isnan(metrics.accuracy(NONE, NONE))
    assert isnan(metrics.detection_adversarial_accuracy(NONE, NONE, NONE))


def test_l0_counts_values_an_image():
    x = torch.zeros(2, 2, 3, 3)
    y = x.clone()
    y[1, 0, 0, 0] = y[1, 1, 2, 2] = 0.5
    assert metrics.l0_distortion(x, y).tolist() == [0, 2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16))
def test_opposite_directions_of_linear_models_are_their_weights_signs(seed):
    torch.manual_seed(seed)
    m, mop = (nn.Sequential(nn.Flatten(), nn.Linear(12, 4)) for _ in range(2))
    with torch.no_grad():
        m[1].weight[0] *= 1e-30  # a product of two such slopes is 0 in float32
        mop[1].weight[0] *= 1e-30
        mop[1].weight[1] = m[1].weight[1]
        mop[1].weight[2] = 0
        mop[1].weight[3] = -m[1].weight[3]
    found = metrics.opposite_directions(m, mop, torch.rand(5, 3, 2, 2), batch=2)
    wanted = [int((m[1].weight[0].sign() != mop[1].weight[0].sign()).sum()), 0, 0, 12]
    assert found.tolist() == [wanted] * 5
