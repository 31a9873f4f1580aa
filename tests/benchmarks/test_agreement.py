"""The comparison with a plain PyTorch loop: its input, and its table."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import agreement
from benchmarks.peers import environments
from tff_personalization import errors
from tff_personalization.records import finished_run as finished_run_lib

pytorch = environments.python_of("pytorch")


def opened(directory):
    return finished_run_lib.FinishedRun.open(directory)


@pytest.fixture
def run(finished_run):
    return opened(finished_run(model="cnn", rounds=1, local_epochs=1, clients_per_round=2))


def test_pytorch_is_given_the_runs_settings_clients_and_examples(run, tmp_path):
    clients = sorted(run.data.split.test)
    agreement.write_data(run, clients, tmp_path / "data.npz")
    with np.load(tmp_path / "data.npz") as arrays:
        settings = json.loads(str(arrays["settings"]))
        assert (settings["rounds"], settings["local_epochs"], settings["server_momentum"]) == (1, 1, 0.9)
        assert len(arrays["train"]) == len(run.data.split.train)
        for (begin, end), client in zip(arrays["test"], clients, strict=True):
            x, y = run.data.test.examples(client)
            np.testing.assert_array_equal(arrays["x"][begin:end], x)
            np.testing.assert_array_equal(arrays["y"][begin:end], y)


@pytest.mark.parametrize("setting", [{"method": "reptile"}, {"model": "linear"}, {"client_optimizer": "adam"}])
def test_another_protocol_than_pytorchs_is_refused_by_the_flag_that_differs(finished_run, setting):
    (name, value) = next(iter(setting.items()))
    with pytest.raises(errors.UserError, match=f"--{name}={value}, and PyTorch's loop has"):
        agreement.settings_of(opened(finished_run(**{"model": "cnn", **setting})))


def test_the_summary_gives_welchs_standard_error_of_the_difference():
    right = {"ours": [[8, 9], [6, 7]], "PyTorch": [[7, 9], [7, 9]]}  # by seed: initial, personalized, of 10 examples
    rows = [
        {"framework": framework, "seed": seed, "initial": initial, "personalized": personalized, "test_examples": 10}
        for framework, of_seed in right.items()
        for seed, (initial, personalized) in enumerate(of_seed)
    ]
    text = agreement.summary(pd.DataFrame(rows))
    assert "initial accuracy: ours - PyTorch = +0.0000, standard error 0.1000" in text
    assert "personalized accuracy: ours - PyTorch = -0.1000, standard error 0.1000" in text


@pytest.mark.skipif(pytorch is None, reason="the PyTorch peer has no environment here")
def test_pytorch_judges_each_test_client(run):
    clients = sorted(run.data.split.test)
    table = agreement.theirs(run, clients, pytorch)
    counts = [run.data.test.num_examples(client) for client in clients]
    assert (table["client"].tolist(), table["test_examples"].tolist()) == (clients, counts)
    assert table[["initial", "personalized"]].le(table["test_examples"], axis=0).all(axis=None)
