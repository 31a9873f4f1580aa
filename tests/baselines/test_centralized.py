"""The stream of pooled examples."""

import types

import numpy as np

from baselines import centralized


class Pool:
    """A fake of the clients' data: five clients with numbered examples."""

    sizes = types.MappingProxyType({"a": 3, "b": 5, "c": 2, "d": 4, "e": 1})

    def num_examples(self, client):
        return self.sizes[client]

    def examples(self, client):
        first = sum(size for name, size in self.sizes.items() if name < client)
        numbers = np.arange(first, first + self.sizes[client])
        return np.broadcast_to(numbers[:, None, None], (len(numbers), 28, 28)).astype(np.uint8), numbers.astype(
            np.int32
        )


def stream(examples_per_round, rounds, seed=0, clients=tuple("abcde")):
    setup = types.SimpleNamespace(train_data=Pool(), train_clients=clients, seed=seed)
    cohort = centralized.pooled_stream(setup, examples_per_round)
    values = []
    for number in range(1, rounds + 1):
        (client,) = cohort(number).values
        (element,) = client.as_numpy_iterator()
        np.testing.assert_array_equal(element["x"][:, 0, 0], element["y"])
        values.append(element["y"].tolist())
    return values


def joined(rounds):
    return [number for one in rounds for number in one]


def test_every_pass_visits_every_example_once_in_another_order():
    visits = joined(stream(7, 15))  # 105 visits are seven passes over 15 examples
    passes = [visits[i : i + 15] for i in range(0, 105, 15)]
    assert all(sorted(one) == list(range(15)) for one in passes)
    assert len({tuple(one) for one in passes}) == 7


def test_a_round_may_hold_several_passes():
    (visits,) = stream(40, 1)
    assert sorted(visits[:15]) == sorted(visits[15:30]) == list(range(15))
    assert len(set(visits[30:])) == 10


def test_the_stream_does_not_depend_on_the_size_of_a_round():
    assert joined(stream(7, 10)) == joined(stream(35, 2))


def test_only_train_clients_are_pooled():
    assert set(joined(stream(6, 4, clients=("b", "d")))) == {3, 4, 5, 6, 7, 10, 11, 12, 13}


def test_a_round_has_as_many_examples_as_fed_avg_visits_also_if_the_cohort_is_larger_than_the_population():
    for clients_per_round, expected in ((1, 6), (2, 12), (5, 30), (20, 30)):  # 15 examples of five clients, two epochs
        settings = types.SimpleNamespace(clients_per_round=clients_per_round, local_epochs=2)
        setup = types.SimpleNamespace(train_data=Pool(), train_clients=tuple("abcde"), settings=settings)
        assert centralized.visits_of_fed_avg(setup) == expected
