import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from luring import losses

torch.set_num_threads(1)

# M∘P's logits; M says class 0 and its runner-up is class 2, while M∘P's highest other class is 1 (first line) or 1 (second).
DECOY = torch.tensor([[2.0, 1.5, -1.0], [1.0, 4.0, 0.5]])
LABEL = torch.tensor([0, 0])
RUNNER_UP = torch.tensor([2, 2])


def test_equation_1_by_hand():
    # line 1: gap 2 - (-1) = 3, hinge max(0, 1.5 - 2) = 0; line 2: gap 1 - 0.5 = 0.5, hinge max(0, 4 - 1) = 3
    for lam in (0.0, 0.15, 1.0, 2.0):
        expected = ((-lam * 3 + 0) + (-lam * 0.5 + 3)) / 2
        assert losses.luring(DECOY, LABEL, RUNNER_UP, lam=lam).item() == pytest.approx(expected)


def test_the_gap_is_to_the_runner_up_of_m_and_the_hinge_to_the_highest_other_of_mop():
    # Were a and b swapped (as Equation 1's definition line has it), these would come out otherwise.
    one = DECOY[:1]
    assert losses.luring(one, LABEL[:1], torch.tensor([1])).item() == pytest.approx(-0.5)
    assert losses.luring(one, LABEL[:1], torch.tensor([2])).item() == pytest.approx(-3.0)


def test_the_bounded_gap_counts_up_to_its_bound_and_has_no_gradient_beyond():
    logits = DECOY.clone().requires_grad_()
    loss = losses.luring(logits, LABEL, RUNNER_UP, lam=1.0, gap_max=2.0)
    assert loss.item() == pytest.approx(((-2.0) + (-0.5 + 3)) / 2)
    loss.backward()
    assert logits.grad[0].tolist() == [0, 0, 0]
    assert logits.grad[1].abs().sum() > 0


def test_a_high_bound_changes_nothing():
    bounded = losses.luring(DECOY, LABEL, RUNNER_UP, gap_max=1e6)
    assert bounded.item() == losses.luring(DECOY, LABEL, RUNNER_UP).item()


def test_gradients_raise_the_label_and_lower_the_others():
    logits = DECOY.clone().requires_grad_()
    losses.luring(logits, LABEL, RUNNER_UP, lam=0.5).backward()
    # Mean over two lines: line 1 has only the gap, line 2 gap and hinge.
    assert torch.allclose(logits.grad, torch.tensor([[-0.25, 0, 0.25], [-0.75, 0.5, 0.25]]))


def test_the_alternative_by_hand():
    # -(2 - 1.5) and -(1 - 4)
    assert losses.luring_alt(DECOY, LABEL).item() == pytest.approx((-0.5 + 3) / 2)
    logits = DECOY.clone().requires_grad_()
    losses.luring_alt(logits, LABEL).backward()
    assert torch.allclose(logits.grad, torch.tensor([[-0.5, 0.5, 0], [-0.5, 0.5, 0]]))


def test_c_e_is_cross_entropy_to_the_softmax_of_m():
    target = torch.tensor([[1.0, 0.0, -2.0], [0.0, 3.0, 1.0]])
    expected = -(target.softmax(1) * DECOY.log_softmax(1)).sum(1).mean()
    assert torch.allclose(losses.c_e(DECOY, target), expected)
    same = target.clone().requires_grad_()
    losses.c_e(same, target).backward()
    assert same.grad.abs().max() < 1e-6, "lowest where M∘P answers as M"


def test_auto_is_binary_cross_entropy_over_all_values():
    restored, images = torch.rand(2, 3, 4, 5) * 0.9 + 0.05, torch.rand(2, 3, 4, 5)
    expected = -(images * restored.log() + (1 - images) * (1 - restored).log()).mean()
    assert torch.allclose(losses.auto(restored, images), expected, atol=1e-6)
    at_best = images.clamp(0.01, 0.99).requires_grad_()
    losses.auto(at_best, at_best.detach()).backward()
    assert at_best.grad.abs().max() < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 5), st.floats(0, 3))
def test_luring_agrees_with_a_loop(seed, classes, batch, lam):
    draw = torch.Generator().manual_seed(seed)
    decoy = torch.randn(batch, classes, generator=draw) * 5
    label, second = torch.randn(batch, classes, generator=draw).topk(2, dim=1).indices.unbind(1)
    total = 0.0
    for line, a, b in zip(decoy.tolist(), label.tolist(), second.tolist(), strict=True):
        highest = max(value for c, value in enumerate(line) if c != a)
        total += -lam * (line[a] - line[b]) + max(0.0, highest - line[a])
    assert losses.luring(decoy, label, second, lam=lam).item() == pytest.approx(total / batch, abs=1e-3)


def test_saturated_softmax_does_not_matter():
    # With softmax both others would be 0 and tie.
    logits = torch.tensor([[500.0, 10.0, -10.0]], requires_grad=True)
    assert F.softmax(logits, 1)[0, 1:].tolist() == [0, 0]
    assert losses.luring_alt(logits, torch.tensor([0])).item() == pytest.approx(-490)
