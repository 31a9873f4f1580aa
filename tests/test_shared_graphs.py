"""Graphs are shared only between runs for which they are the same."""

import functools

import numpy as np
import pytest
import tensorflow_federated as tff

from tests import shared_graphs
from tff_personalization import optimizers

SGDM = tff.learning.optimizers.build_sgdm


def _adds(held):
    return lambda x: x + held


_LONG = np.zeros(5000)  # too long for `repr` to show all of it
_OTHER = np.where(np.arange(5000) == 2500, 1.0, 0.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([_LONG], [_OTHER]),
        ({"kept": (_LONG, 1)}, {"kept": (_OTHER, 1)}),
        (_adds(_LONG), _adds(_OTHER)),
        (_adds(_adds([1])), _adds(_adds([2]))),
        (_adds(1), lambda x: x),
        (functools.partial(_adds, _LONG), functools.partial(_adds, _OTHER)),
        (object(), object()),
        (SGDM(0.1), SGDM(0.1, momentum=0.9)),
        (optimizers.NotConverted(SGDM(0.1)), optimizers.NotConverted(SGDM(0.2))),
    ],
    ids=["arrays", "nested", "closures", "closures of closures", "code", "partial", "objects", "optimizers", "wrapped"],
)
def test_what_differs_is_distinguished(one, other):
    assert shared_graphs._identity(one) == shared_graphs._identity(one)
    assert shared_graphs._identity(one) != shared_graphs._identity(other)


def _calls_itself(n):
    def count(x):
        return x if x > n else count(x + 1)

    return count


def test_a_function_that_holds_itself_has_an_identity():
    one, same, other = (shared_graphs._identity(_calls_itself(n)) for n in (1, 1, 2))
    assert one == same != other


def test_equal_optimizers_have_one_identity():
    assert shared_graphs._identity(SGDM(0.1, momentum=0.9)) == shared_graphs._identity(SGDM(0.1, momentum=0.9))


def test_equal_contents_share_a_graph_and_the_key_stays_where_it_is():
    made = [shared_graphs._once("test", _adds(np.arange(3)), object) for _ in range(2)]
    assert made[0] is made[1]
    unlike = {id(shared_graphs._once("test", object(), object)) for _ in range(50)}
    assert len(unlike) == 50
