"""Splits the clients into train, validation and test clients: disjoint sets."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tff_personalization import errors

# Federated EMNIST: 2,500 of 3,400 writers train, 900 are held out.
TEST_SHARE = 900 / 3400


@dataclasses.dataclass(frozen=True)
class ClientSplit:
    """The ids of the train, validation and test clients. No id is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        ids = (*self.train, *self.validation, *self.test)
        if len(set(ids)) != len(ids):
            raise ValueError("train, validation and test clients overlap")

    def counts(self) -> dict[str, int]:
        """The number of clients of each kind."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def split_clients(
    client_ids: Sequence[str],
    rng: np.random.Generator,
    train_clients: int | None = None,
    validation_clients: int = 0,
    test_clients: int | None = None,
    held_out: Sequence[str] = (),
    may_train: Sequence[str] = (),
) -> ClientSplit:
    """Shuffles the clients and splits them: the first are test clients, the next validation clients, the rest train.

    If the data names its held-out clients, all of them test, or `test_clients` of them; the others are not used.
    Validation clients are taken from those that would train. So the test clients are the same with and without
    validation clients.

    Args:
        client_ids: all clients.
        rng: source of the random choice.
        train_clients: how many of the rest train; None for all.
        validation_clients: the number of validation clients.
        test_clients: the number of test clients; None for 900 of 3,400.
        held_out: the clients from which test clients are taken; empty for all.
        may_train: the clients from which train and validation clients are taken; empty for all that do not test.

    Raises:
        UserError: the numbers do not fit the number of clients.
    """
    ordered = sorted(client_ids)
    shuffled = [ordered[i] for i in rng.permutation(len(ordered))]  # indices, not names: NumPy cuts strings at a NUL
    if both := sorted(set(held_out) & set(may_train)):
        raise errors.UserError(
            f"--train_client_ids: {both[0]!r} is held out as a test client: let it either train or test."
        )
    if may_train and not held_out:
        held_out = sorted(set(client_ids) - set(may_train))
        if not held_out:
            raise errors.UserError("--train_client_ids names all clients: leave some out for testing.")
    if held_out:
        aside = set(held_out)
        pool = [client for client in shuffled if client in aside]
        if test_clients is not None and not 0 < test_clients <= len(pool):
            raise errors.UserError(
                f"--test_clients={test_clients}: {len(pool)} clients are already held out; give 1 to {len(pool)}."
            )
        pool = pool[:test_clients]
        others = [client for client in shuffled if client not in aside]
        shuffled = [*pool, *(client for client in others if not may_train or client in set(may_train))]
        test_clients = len(pool)
    testing = max(1, round(TEST_SHARE * len(shuffled))) if test_clients is None else test_clients
    if len(shuffled) < 2:
        raise errors.UserError(
            f"--client_data: the data has {len(shuffled)} client; at least two are needed: one must train and one "
            "must be held out."
        )
    if not 0 < testing < len(shuffled):
        raise errors.UserError(
            f"--test_clients={testing}: the data has {len(shuffled)} clients, and at least one must train and one must "
            f"be held out; give 1 or more and fewer than {len(shuffled)}."
        )
    not_training = testing + validation_clients
    if not testing <= not_training < len(shuffled):
        raise errors.UserError(
            f"--validation_clients={validation_clients}: {len(shuffled) - testing} clients are not test "
            "clients, and at least one of these must train; give a smaller number."
        )
    rest = shuffled[not_training:]
    if train_clients is not None and not 0 < train_clients <= len(rest):
        raise errors.UserError(
            f"--train_clients={train_clients}: {len(rest)} clients are not held out; give 1 to {len(rest)}."
        )
    return ClientSplit(
        train=tuple(rest[:train_clients]),
        validation=tuple(shuffled[testing:not_training]),
        test=tuple(shuffled[:testing]),
    )
