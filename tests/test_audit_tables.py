"""Who is a rival: what a defence is worth shows only beside one that can be used."""

import pytest

from luring.audit.tables import LOST, REJECTED, Guarded, dearer, rivals, usable
from luring.paper.tables import Value


def defence(architecture, policy="score", accuracy=0.99, rejected=0.01):
    return Guarded(architecture, policy, Value(accuracy, 0.0, 1), Value(rejected, 0.0, 1), {})


GUARD = defence("luring")


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        (defence("twin"), True),
        (defence("twin", rejected=REJECTED), True),
        (defence("twin", rejected=REJECTED + 0.01), False),
        (defence("adversarial", "target", accuracy=0.99 - LOST + 0.001, rejected=0.0), True),
        (defence("adversarial", "target", accuracy=0.116, rejected=0.0), False),
        (defence("base", "target", rejected=0.0), False),
    ],
)
def test_who_refuses_too_much_or_answers_at_random_is_no_rival(other, counts):
    assert rivals([GUARD, other]) == ([other] if counts else [])


def test_what_costs_accuracy_is_told_apart_from_what_refuses():
    costly = defence("adversarial", "target", accuracy=0.7, rejected=0.0)
    assert dearer([GUARD, defence("twin"), costly, defence("c_e", rejected=0.9)]) == [costly]


def test_what_is_not_usable_has_no_least_share():
    constant = defence("adversarial", "target", accuracy=0.116)
    assert usable([GUARD, constant]) == [GUARD]
