"""Trains a paper for three steps on one or more logical CPU devices and writes every variable and what
the last step logged: a process of its own, since two MirroredStrategies with collectives do not live in one.
With TF_CONFIG it is one worker of several, each with as many devices.

usage: replica_worker.py PAPER REPLICAS DATA_DIR RUN_DIR OUT.npz [--setting=value ...]
"""

import ast
import os
import sys

import numpy as np
import tensorflow as tf

from t2i_tf.config import TrainConfig
from t2i_tf.training.session import Session


def main(paper, replicas, data_dir, run_dir, out, *settings):
    count = int(replicas)
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * count)
    given = {}
    for setting in settings:
        name, value = setting.removeprefix("--").split("=", 1)
        given[name] = ast.literal_eval(value)
    training = TrainConfig(
        paper=paper,
        data_dir=data_dir,
        run_dir=run_dir,
        steps=3,
        devices=None if "TF_CONFIG" in os.environ else ",".join(f"CPU:{i}" for i in range(count)),
        deterministic=True,
        **{name: given.pop(name) for name in [*given] if name in TrainConfig.__dataclass_fields__},
    )
    session = Session(training, given)
    if paper == "char_cnn_rnn":
        # Text vectors are pulled apart as much as together: the gradient of their bias is rounding alone, of which the
        # published epsilon of 1e-8 makes whole steps.
        session.trainer.optimizers["encoders"].epsilon = 1e-4
    history = session.trainer.fit(session.batches(0), epochs=1, steps_per_epoch=3, verbose=0, shuffle=False)
    variables = {
        f"{name}/{variable.path}": variable.numpy()
        for name, network in session.recipe.networks.items()
        for variable in network.variables
    }
    logs = {f"logs/{name}": values[-1] for name, values in history.history.items()}
    np.savez(out, **variables, **logs)
    session.team.wait()  # a worker that ends ends the others


if __name__ == "__main__":
    main(*sys.argv[1:])
