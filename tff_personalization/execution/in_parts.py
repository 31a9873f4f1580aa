"""A TFF context that computes over many clients in parts, on one worker or on several."""

import asyncio
import functools
import itertools
import re
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import grpc
import numpy as np
import tensorflow_federated as tff
from absl import logging
from tensorflow_federated.python.common_libs import async_utils, structure
from tensorflow_federated.python.core.impl.executors import cardinalities_utils

from tff_personalization import errors

_PARTS_PER_WORKER = 2
# What TensorFlow says of an operation that a client's values do not fit, without the names of the operation.
_FAILED = re.compile(r"Failed to run computation: (.+?)\s*(?:\[\[|while evaluating|\"|\n|$)")


class Workers(Protocol):
    """The workers that compute: this machine's worker process, or those of other machines."""

    def attempt(self, compute: Callable[[list[tff.framework.AsyncContext]], Any]) -> Any:
        """The result of `compute` on the contexts of all available workers; again, if a worker is lost meanwhile."""


class Context(tff.framework.SyncContext):
    """Computes on workers; a computation over many clients in parts of at most `clients_per_call` of them.

    A worker holds each client's result (about 20 MB for the paper's network) until all are aggregated. So its memory
    grows with the clients of a call. TFF can split a computation that aggregates once. It merges partial aggregates
    over parts of the clients, and the next steps get the whole aggregate. Sums, (weighted) means, and clipping or
    zeroing by norms from earlier rounds can be split. Other computations, such as an aggregate that depends on another
    one of the same round, are computed in one piece by one worker.
    """

    def __init__(self, workers: Workers, clients_per_call: int):
        self._workers = workers
        self._clients_per_call = clients_per_call
        self._runner = async_utils.AsyncThreadRunner()
        self._mergeable: dict[tff.Computation, tff.framework.MergeableCompForm | None] = {}
        self._merging: dict[tuple, tff.framework.MergeableCompExecutionContext] = {}

    def invoke(self, comp: tff.Computation, arg: Any) -> Any:
        try:
            return self._workers.attempt(functools.partial(self._compute, comp, arg))
        except grpc.RpcError as error:
            if (failed := _FAILED.search(str(error))) is None:
                raise
            raise errors.UserError(
                f"TFF's worker cannot compute with the clients' examples: {failed[1]}: correct the client data, or the "
                "network, method or strategy. An Embedding, for example, needs ids from 0 to its size - 1."
            ) from error

    def _compute(self, comp: tff.Computation, arg: Any, contexts: list[tff.framework.AsyncContext]) -> Any:
        clients = _count_clients(comp, arg)
        # With several workers, several parts for each, so that a faster worker takes more of them.
        wanted = min(clients, _PARTS_PER_WORKER * len(contexts)) if len(contexts) > 1 else 1
        parts = max(wanted, -(-clients // self._clients_per_call))
        if parts > 1 and len(contexts) > 1 and _is_placed_at_clients(comp.type_signature.result):
            return self._run(_in_turns(comp, _parts_of_clients(comp, arg, parts), contexts))
        form = self._mergeable_form(comp) if parts > 1 else None
        if form is None:
            return self._run(contexts[0].invoke(comp, arg))
        return self._merging_context(contexts, parts).invoke(form, arg)

    def _merging_context(
        self, contexts: list[tff.framework.AsyncContext], parts: int
    ) -> tff.framework.MergeableCompExecutionContext:
        """A context that merges this many parts. It is reused, because each has a thread and a loop that never end.

        The thread must not end: a worker that was restarted there would end with it.
        """
        gone = [key for key in self._merging if not set(key[0]) <= set(contexts)]
        for key in gone:
            del self._merging[key]
        key = (tuple(contexts), parts)
        if key not in self._merging:
            self._merging[key] = tff.framework.MergeableCompExecutionContext(
                contexts, transform_result=tff.tensorflow.transform_result, num_subrounds=parts
            )
        return self._merging[key]

    def _run(self, coroutine: Coroutine) -> Any:
        return self._runner.run_coro_and_return_result(coroutine)

    def _mergeable_form(self, comp: tff.Computation) -> tff.framework.MergeableCompForm | None:
        """The computation split at its aggregation, or None if it has a value for each client or cannot be split."""
        if comp not in self._mergeable:
            self._mergeable[comp] = None
            if not tff.types.contains(comp.type_signature.result, _is_placed_at_clients):
                try:
                    self._mergeable[comp] = tff.backends.native.compile_to_mergeable_comp_form(_with_plain_sums(comp))
                except (TypeError, ValueError) as error:
                    logging.warning(
                        "A computation over more than %d clients cannot be split; its memory grows with "
                        "the clients (%s).",
                        self._clients_per_call,
                        " ".join(str(error).split())[:200],
                    )
        return self._mergeable[comp]


def worker_context(executor_fn: Callable[[dict], tff.framework.RemoteExecutor]) -> tff.framework.AsyncExecutionContext:
    """A context of one worker. `executor_fn` makes its executor for a number of clients."""
    return tff.framework.AsyncExecutionContext(
        executor_fn=tff.framework.ResourceManagingExecutorFactory(executor_fn),
        compiler_fn=lambda comp: tff.backends.native.desugar_and_transform_to_native(_with_plain_sums(comp)),
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )


def _is_placed_at_clients(type_: tff.Type) -> bool:
    return isinstance(type_, tff.FederatedType) and type_.placement is tff.CLIENTS


def _parts_of_clients(comp: tff.Computation, arg: Any, parts: int) -> list[Any]:
    """The argument of a computation, once for each part of the clients."""
    elements = list(zip(arg, comp.type_signature.parameter, strict=True))
    places = np.array_split(np.arange(_count_clients(comp, arg)), parts)
    return [
        structure.Struct.unnamed(
            *(
                [value[place] for place in part] if _is_placed_at_clients(type_) and not type_.all_equal else value
                for value, type_ in elements
            )
        )
        for part in places
    ]


async def _in_turns(comp: tff.Computation, arguments: list[Any], contexts: list[Any]) -> list[Any]:
    """The results of a computation for each argument, in order. A context takes the next argument when it is free."""
    results: list[Any] = [None] * len(arguments)
    waiting = iter(range(len(arguments)))

    async def take_turns(context: Any) -> None:
        for number in waiting:
            results[number] = await context.invoke(comp, arguments[number])

    await asyncio.gather(*map(take_turns, contexts))
    return list(itertools.chain.from_iterable(results))


def _with_plain_sums(comp: tff.Computation) -> tff.Computation:
    """`comp` with plain sums for secure ones, because TFF's worker has no cryptography. The values are the same."""
    plain = tff.backends.test.replace_secure_intrinsics_with_bodies(comp)
    return tff.framework.ConcreteComputation.with_type(plain, comp.type_signature)  # which names Python's containers


def _count_clients(comp: tff.Computation, arg: Any) -> int:
    if arg is None:
        return 0
    return cardinalities_utils.infer_cardinalities(arg, comp.type_signature.parameter).get(tff.CLIENTS, 0)
