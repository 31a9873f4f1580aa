"""One of TFF's own tasks (`tff.simulation.baselines`), with its client data, preprocessing and network, in a few lines.

    python run_experiment.py --plugin=examples/baseline_task.py --task=tff_tags --test_clients=1

Stack Overflow's tags, with TFF's small synthetic data; without `use_synthetic_data`, TFF downloads the real one.
"""

import tensorflow_federated as tff

from tff_personalization.models import outputs
from tff_personalization.tasks import baseline_tasks, registry

TAGS = 20

baseline = tff.simulation.baselines.stackoverflow.create_tag_prediction_task(
    tff.simulation.baselines.ClientSpec(num_epochs=1, batch_size=20), tag_vocab_size=TAGS, use_synthetic_data=True
)
registry.register(
    "tff_tags",
    baseline_tasks.convert(
        baseline,
        predicts=outputs.several_labels([f"tag {number}" for number in range(TAGS)]),
        source="synthetic Stack Overflow tags of TFF",
    ),
)
