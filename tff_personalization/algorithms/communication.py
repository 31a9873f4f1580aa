"""What a client receives, sends and keeps in a round, by the types of the round's computation.

Values that the server broadcasts go down to each client. Values that TFF aggregates go up from each client: model
deltas, weights, and a few sums for the records. The types are those of the values before encryption and before any
compression on the network. Whatever a computation does not send by these types, no client sends.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.compiler import building_blocks, transformation_utils

from tff_personalization.algorithms import method, stateful_clients


class Bytes(NamedTuple):
    """The bytes of one client in a round. None if they depend on the cohort or on the values.

    Attributes:
        down: received from the server.
        up: sent to the server.
        kept: the client's state, which it keeps until its next round.
    """

    down: int | None
    up: int | None
    kept: int


class Step(NamedTuple):
    """A step of a computation in which values go from clients to the server, or from the server to the clients.

    Attributes:
        name: TFF's name of the step, such as "federated_sum".
        up: whether clients send.
        type: the type of the values that one client sends or receives.
    """

    name: str
    up: bool
    type: tff.Type


def of_process(process: method.LearningProcess) -> Bytes:
    """The bytes of one client in a round of a learning process."""
    found = steps(process.next)
    down, up = (num_bytes([step.type for step in found if step.up == is_up]) for is_up in (False, True))
    states = process.client_state if isinstance(process, stateful_clients.StatefulProcess) else ()
    return Bytes(down, up, sum(np.asarray(part).nbytes for part in tf.nest.flatten(states)))


def steps(computation: tff.Computation) -> list[Step]:
    """The steps of a computation in which values go between clients and server."""
    found = []

    def look(block: building_blocks.ComputationBuildingBlock) -> tuple[building_blocks.ComputationBuildingBlock, bool]:
        if isinstance(block, building_blocks.Intrinsic) and isinstance(block.type_signature, tff.FunctionType):
            for up, source, target in ((True, tff.CLIENTS, tff.SERVER), (False, tff.SERVER, tff.CLIENTS)):
                taken = _members(block.type_signature.parameter, source)
                if taken and _members(block.type_signature.result, target):
                    found.append(Step(block.uri, up, tff.StructType(taken)))
        return block, False

    transformation_utils.transform_postorder(computation.to_building_block(), look)
    return found


def _members(type_: tff.Type | None, placement: Any) -> list[tff.Type]:
    """The types of the values in a type that have a placement."""
    found: list[tff.Type] = []

    def look(part: tff.Type) -> bool:
        if isinstance(part, tff.FederatedType) and part.placement is placement:
            found.append(part.member)
        return False

    if type_ is not None:
        tff.types.contains(type_, look)
    return found


def num_bytes(types: list[tff.Type]) -> int | None:
    """The bytes of values of some types; None if a shape is unknown, or if they hold text."""
    sizes: list[int | None] = []

    def look(part: tff.Type) -> bool:
        if isinstance(part, tff.TensorType):
            of_one = np.dtype(part.dtype).itemsize  # 0 for text
            known = part.shape is not None and None not in part.shape and of_one > 0
            sizes.append(int(np.prod(part.shape)) * of_one if known else None)
        return False

    tff.types.contains(tff.StructType(types), look)
    return None if None in sizes else sum(size for size in sizes if size is not None)
