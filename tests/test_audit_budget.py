"""What an audit is asked to spend."""

from dataclasses import replace

import pytest

from luring.audit.budget import BUDGETS, RIVALS
from luring.errors import InputError


def test_rivals_are_asked_for_by_name_and_trained_for_as_long_as_said():
    full = BUDGETS["full"]
    found = full.asked(["adversarial", "base"], 2 * full.training)
    assert found.controls == ("base", "adversarial")
    assert (found.training, found.adversarial) == (2 * full.training, 2 * full.adversarial)
    assert replace(found, controls=RIVALS, training=full.training, adversarial=full.adversarial) == full
    assert full.asked(None, None) == full


@pytest.mark.parametrize(("rivals", "training", "said"), [(["twins"], None, "no rival 'twins'"), (None, 0, "0 steps")])
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(rivals, training, said):
    with pytest.raises(InputError, match=said) as caught:
        BUDGETS["quick"].asked(rivals, training)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
