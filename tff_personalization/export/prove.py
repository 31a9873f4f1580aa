"""Compares personalization by a TensorFlow Lite file with the evaluation's, on held-out clients of the run.

    python -m tff_personalization.export RUN --format=tflite
    python -m tff_personalization.export.prove RUN RUN/export/round_150_fine_tune.tflite

Each client fine-tunes twice from the same model, on the same batches with the same dropout: in the evaluation
computation, and through the file's signatures in TensorFlow Lite's interpreter. Prints a table, and writes beside the
file FILE.proof.csv, a row for each client and epoch, and FILE.proof.json: differences, sizes, milliseconds.
"""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tqdm
from absl import flags

from tff_personalization import errors, global_weights, metrics, seeds, startup
from tff_personalization.export import global_model, on_device, tflite
from tff_personalization.programs import client_evaluation
from tff_personalization.records import files, finished_run, run_directory
from tff_personalization.tasks import federated_data

_STEPS, _PREDICTIONS = 30, 100  # how many clients are timed


def chosen_clients(run: finished_run.FinishedRun, count: int) -> list[str]:
    """`count` of the run's test clients that have test examples, drawn from the run's seed."""
    clients = [client for client in run.data.split.test if run.data.test.num_examples(client)]
    order = seeds.generator(run.experiment.config.seed, "on_device").permutation(len(clients))
    return [clients[i] for i in order[:count]]


def compare(found: global_model.GlobalModel, device: on_device.OnDevice, clients: Sequence[str]) -> pd.DataFrame:
    """Accuracy and loss on each client's test part before personalization and after each epoch, both ways.

    Returns:
        Columns client, epoch, train_examples, test_examples, tff_accuracy, tflite_accuracy, tff_loss, tflite_loss
        (of a prediction, in nats). TFF computes in the current execution context.
    """
    strategy = device.metadata["personalization"]["strategy"]
    config = found.run.experiment.config.replace(evaluation_release="records")
    experiment = dataclasses.replace(found.run.experiment, config=config)
    weights = global_weights.GlobalWeights(found.weights)
    evaluator = client_evaluation.PersonalizationEvaluator(experiment, found.run.model, found.run.data, weights)
    table = evaluator.evaluate(weights, clients, found.round_number, strategies=[strategy]).clients
    assert table is not None  # since records are released
    table = table.rename(columns={"accuracy": "tff_accuracy", "loss": "tff_loss"}).set_index(["client", "epoch"])
    for client in tqdm.tqdm(clients, desc="TensorFlow Lite", unit="client"):
        for epoch, judged in enumerate(_curve(found, device, client)):
            count = table.loc[(client, epoch), "test_examples"]
            table.loc[(client, epoch), "tflite_accuracy"] = judged.correct / count
            table.loc[(client, epoch), "tflite_loss"] = judged.loss_sum / count
    kept = ["train_examples", "test_examples", "tff_accuracy", "tflite_accuracy", "tff_loss", "tflite_loss"]
    return table[kept].reset_index()


def _curve(found: global_model.GlobalModel, device: on_device.OnDevice, client: str) -> list[on_device.Judgement]:
    """The results of a client's model on its test part before personalization by the file, and after each epoch."""
    seed = seeds.stateless(found.run.experiment.config.seed, "personalization", found.round_number, client)
    train, test = found.run.data.train.examples(client), found.run.data.test.examples(client)
    device.initialize()
    judged = [device.judge(*test)]
    fraction = device.metadata["personalization"].get("early_stopping_fraction")

    def note(epoch: int) -> None:
        judged.append(device.judge(*test))

    if fraction is None:
        device.fine_tune(*train, seed, note)
    else:
        device.fine_tune_unless_hurt(*train, seed, fraction, note)
    return judged


def measure(
    device: on_device.OnDevice,
    quantized: on_device.OnDevice,
    data: federated_data.FederatedData,
    clients: Sequence[str],
) -> dict[str, Any]:
    """Times in milliseconds (medians), and the change of the global model's mean accuracy by quantization."""
    x, y = (np.concatenate(parts) for parts in zip(*map(data.test.examples, clients), strict=True))
    size = device.metadata["personalization"]["batch_size"]
    x_of_step, y_of_step = (np.concatenate([part] * -(-size // len(y)))[:size] for part in (x, y))
    device.initialize()
    exact, rounded = device.logits(x).argmax(axis=1), quantized.logits(x).argmax(axis=1)
    parts = np.split(np.stack([exact == y, rounded == y]), _ends(data, clients), axis=1)
    accuracy, quantized_accuracy = np.mean([part.mean(axis=1) for part in parts], axis=0)
    found = {
        "batch_size": size,
        "ms_per_step": _milliseconds(lambda: device.train(x_of_step, y_of_step, np.zeros(2, np.int32)), _STEPS),
        "ms_per_prediction": _milliseconds(lambda: device.logits(x[:1]), _PREDICTIONS),
        "ms_per_prediction_quantized": _milliseconds(lambda: quantized.logits(x[:1]), _PREDICTIONS),
        "test_examples": len(y),
        "initial_accuracy": float(accuracy),
        "initial_accuracy_quantized": float(quantized_accuracy),
        "predictions_changed_by_quantization": float((exact != rounded).mean()),
    }
    device.initialize()
    return found


def _ends(data: federated_data.FederatedData, clients: Sequence[str]) -> np.ndarray:
    return np.cumsum([data.test.num_examples(client) for client in clients])[:-1]


def _milliseconds(call: Callable[[], Any], count: int) -> float:
    call()  # allocates
    times = []
    for _ in range(count):
        started = time.process_time()  # processor time of one core, so other work on the machine does not count
        call()
        times.append(time.process_time() - started)
    return round(1000 * statistics.median(times), 3)


def markdown(table: pd.DataFrame, said: dict[str, Any]) -> str:
    """The clients' accuracies before and after personalization, and their means."""
    last = table["epoch"].max()
    before, after = (table[table["epoch"] == epoch].set_index("client") for epoch in (0, last))
    lines = [
        "| client | train examples | test examples | initial | personalized: TFF | TensorFlow Lite |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.Index} | {row.train_examples} | {row.test_examples} | {before.tff_accuracy[row.Index]:.3f} | "
        f"{row.tff_accuracy:.3f} | {row.tflite_accuracy:.3f} |"
        for row in after.itertuples()
    ]
    means = (before.tff_accuracy.mean(), after.tff_accuracy.mean(), after.tflite_accuracy.mean())
    lines.append(f"| **mean** | | | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    run = said["run"]
    note = (
        f"{run['source']}; run {run['name']}, seed {run['seed']}, commit {run['git_commit'][:10]}, round "
        f"{run['round']}; {said['personalization']['strategy']}, {last} epochs. Largest difference over all epochs: "
        f"accuracy {_largest(table, 'accuracy'):.3g}, loss {_largest(table, 'loss'):.2g}."
    )
    return "\n".join([*lines, "", note])


def _largest(table: pd.DataFrame, name: str) -> float:
    return float((table[f"tff_{name}"] - table[f"tflite_{name}"]).abs().max())


def prove(
    run: pathlib.Path, path: pathlib.Path, count: int, client_data: str | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of `compare` for a number of clients, and the findings, as plain values.

    Raises:
        UserError: the file does not belong to the run, or the run's data is missing.
    """
    device = on_device.open_file(path)
    said = device.metadata
    if "personalization" not in said:
        raise errors.UserError(f"{path}: a file that cannot be trained; give one made without --quantize.")
    opened = finished_run.FinishedRun.open(run, client_data)
    found = global_model.read(opened, said["run"]["round"])
    predicts = opened.task.predicts
    if not predicts.one_class or opened.metric != metrics.ACCURACY:
        raise errors.UserError(
            f"{run}: its task predicts {predicts.words}, and its metric is {opened.metric.name}; a proof needs one "
            "class for each example, and accuracy."
        )
    saved = device.save()
    for place, w in enumerate(found.weights):
        if not np.array_equal(saved.get(f"weight_{place}", w), w):
            raise errors.UserError(
                f"{path} was not exported from {run}: its weights differ; export the run's model first."
            )
    clients = chosen_clients(opened, count)
    if not clients:
        raise errors.UserError(f"{run}: no test client has test examples.")
    with opened.computing():
        table = compare(found, device, clients)
    quantized = tflite.convert_quantized(found)
    measured = measure(device, on_device.OnDevice(quantized), opened.data, clients)
    return table, {
        **said,
        "clients": len(clients),
        "largest_difference": {name: _largest(table, name) for name in ("accuracy", "loss")},
        "bytes": path.stat().st_size,
        "bytes_quantized": len(quantized),
        "threads": 1,
        **measured,
        "proved_with": {"git_commit": run_directory.git_commit()},
    }


def main(argv: Sequence[str]) -> int:
    if len(argv) != 3:
        raise errors.UserError("a run directory and a file are expected: prove RUN FILE.tflite")
    path = pathlib.Path(argv[2])
    place = pathlib.Path(flags.FLAGS.output_dir) if flags.FLAGS.output_dir else path.parent
    try:
        place.mkdir(parents=True, exist_ok=True)  # checked now, not after minutes
    except OSError as error:
        raise errors.UserError(f"--output_dir={place}: cannot be made ({error.strerror}): give another.") from error
    table, found = prove(pathlib.Path(argv[1]), path, flags.FLAGS.clients, flags.FLAGS.client_data)
    files.write_text(place / f"{path.name}.proof.csv", table.to_csv(index=False))
    files.write_text(place / f"{path.name}.proof.json", files.json_text(found) + "\n")
    print(markdown(table, found))
    print(
        f"\n{found['bytes'] / 1e6:.2f} MB ({found['bytes_quantized'] / 1e6:.2f} MB quantized); one core: "
        f"{found['ms_per_step']:.1f} ms a training step of {found['batch_size']}, {found['ms_per_prediction']:.2f} ms "
        f"a prediction ({found['ms_per_prediction_quantized']:.2f} quantized). Initial accuracy "
        f"{found['initial_accuracy']:.4f}, quantized {found['initial_accuracy_quantized']:.4f}."
    )
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("clients", 20, "Number of the run's test clients to use.", lower_bound=1)
    flags.DEFINE_string("client_data", None, "Current place of the run's data. Default: where the run read it.")
    flags.DEFINE_string("output_dir", None, "Where to write the records. Default: beside FILE.tflite.")
    startup.run_main(main)
