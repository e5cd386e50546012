"""`t2i-train --dry_run`: what would be trained, with what it costs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.training import run_folder
from t2i_tf.training.session import Session


def report(session: Session) -> str:
    """The resolved configuration, the networks with parameter counts, memory and steps."""
    replicas = session.strategy.num_replicas_in_sync
    trained = sum(count_values(network.trainable_variables) for network in session.recipe.networks.values())
    kept = sum(count_values(network.variables) for network in session.recipe.networks.values())
    slots = sum(count_values(optimizer.variables) for optimizer in session.trainer.optimizers.values())
    average = count_values(session.trainer.average.shadows) if session.trainer.average else 0
    activations = _activation_megabytes(session)
    fixed = (kept + slots + trained + average) * 4 / 2**20
    lines = [f"configuration ({run_folder.find(session.config)}):", run_folder.flags_text(session.config)]
    for name, network in session.recipe.networks.items():
        lines += [*_table(name, network), ""]
    lines += [
        f"data: {session.split.num_images} training pictures in {session.dataset.path}",
        f"steps: {session.steps}, {session.steps_per_epoch} an epoch, {session.hyperparameters.batch_size} pictures "
        f"each on {replicas} device{'s' if replicas > 1 else ''}",
        f"memory of a device: {fixed:.0f} MB for weights, gradients and optimizer; a step's tensors sum to "
        f"{activations:.0f} MB (the most it can need; most are freed on the way)",
    ]
    return "\n".join(lines)


def count_values(variables) -> int:
    """How many numbers they hold together."""
    return int(sum(np.prod(v.shape) for v in variables))


def _table(name: str, network) -> list[str]:
    """A line for each layer that owns weights: its place, its number of parameters, their shapes."""
    layers: dict[str, list] = {}
    for variable in network.variables:
        place, _, own = variable.path.rpartition("/")
        layers.setdefault(place.removeprefix(f"{network.name}/"), []).append((own, variable))
    wide = max(map(len, layers))
    lines = [
        f"{name}: {count_values(network.trainable_variables):,} trained parameters, "
        f"{count_values(network.non_trainable_variables):,} statistics"
    ]
    for place, owned in layers.items():
        shapes = ", ".join(f"{own} {'x'.join(map(str, variable.shape))}" for own, variable in owned)
        lines.append(f"  {place:<{wide}}  {count_values([variable for _, variable in owned]):>12,}  {shapes}")
    return lines


def _activation_megabytes(session: Session) -> float:
    """Sum over all tensors of one replica's step, before memory is reused."""
    replicas = session.strategy.num_replicas_in_sync // session.team.count

    def share(spec):
        return tf.TensorSpec([spec.shape[0] // replicas, *spec.shape[1:]], spec.dtype)

    def size(op):
        return sum(
            np.prod(t.shape) * t.dtype.size for t in op.outputs if t.dtype.is_floating and t.shape.is_fully_defined()
        )

    def step(batch):
        return session.strategy.run(session.trainer.train_step, args=(batch,))

    specification = tf.nest.map_structure(share, session.batch_spec())
    graph = tf.function(step, autograph=False).get_concrete_function(specification).graph
    return float(sum(size(op) for op in graph.get_operations())) / replicas / 2**20
