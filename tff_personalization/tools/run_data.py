"""The client data of a finished run, for the tools that go on from its models."""

import json
import pathlib

from tff_personalization import errors
from tff_personalization.experiment import settings
from tff_personalization.tasks import federated_data


def load(run: pathlib.Path, config: settings.ExperimentConfig) -> federated_data.FederatedData:
    """Reads what a run was made with.

    Raises:
        UserError: it cannot be read, or is not what it was.
    """
    data = federated_data.load(config)
    record = json.loads((run / "config.json").read_text(encoding="utf-8"))
    if record.get("data_sha256", data.sha256) != data.sha256:
        raise errors.UserError(f"{run}: the client data has changed since the run; restore it.")
    return data
