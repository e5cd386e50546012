"""run(config): a session, its run folder, resume, fit. Names no paper."""

from __future__ import annotations

import dataclasses
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from t2i_tf import checkpoints, papers
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.inference import TEXT_ENCODER, write_vocabulary
from t2i_tf.training import callbacks, devices, run_folder
from t2i_tf.training.best import BestWeights
from t2i_tf.training.observer import Observer
from t2i_tf.training.session import Session


@dataclass
class Outcome:
    """What a call of `run` did."""

    run_dir: Path | None
    """None in a worker that is not the chief."""
    step: int
    steps: int
    interrupted: bool = False
    stopped: bool = False
    """It ended before `steps`, since its scores got no better."""
    best: str = ""
    """The best score and its step, where the run keeps its weights."""


def run(training: TrainConfig, given: dict) -> Outcome:
    """Trains, or goes on training, until `steps`. Ctrl-C or SIGTERM ends the step, saves and returns, of many workers
    in all; a second one raises KeyboardInterrupt at once, and the last checkpoint stands.

    Args:
        given: hyperparameters of the paper that the user set, by name.

    Raises UserError for settings or data that do not fit, a run folder in use, non-finite losses, and when another
    worker is gone.
    """
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    with devices.told_when_lost():
        session = Session(training, given)
        if not session.team.chief:
            return _train(session, None)
        run_dir = run_folder.find(session.config)
        lock = run_folder.Lock(run_dir)
        try:
            return _train(session, run_dir)
        finally:
            lock.release()


def _train(session: Session, run_dir: Path | None) -> Outcome:
    """A worker that is not the chief has no run folder: it takes the chief's state, trains along and writes nothing."""
    training, trainer, team = session.training, session.trainer, session.team
    keeper = checkpoints.Keeper(run_dir, trainer, training.keep_checkpoints) if team.chief else None
    if team.chief and not keeper.restore():  # outside the strategy's scope, where a new variable is a matter of all
        session.load_pretrained()
        if trainer.average is not None:
            trainer.average.restart()
    team.take_from_chief(trainer.state)
    start = int(trainer.step.numpy())
    if start >= session.steps:
        return Outcome(run_dir, start, session.steps)
    if (session.steps - start) % training.steps_per_execution:
        raise UserError(
            f"the run stands at step {start}, from which --steps_per_execution={training.steps_per_execution} does not "
            f"lead to step {session.steps}: give another number for it"
        )
    logging.info("training on %s", devices.described(session.strategy))
    best = BestWeights(run_dir, session.selection, training.patience) if team.chief and session.selection else None
    if team.any(best is not None and best.exhausted)[0]:
        return Outcome(run_dir, start, session.steps, stopped=True, best=str(best or ""))
    stop_on = callbacks.StopOnNonFinite(start, training.log_every, lambda: _way_on(session, run_dir))
    together = callbacks.Together(start, team)
    beside = [stop_on]
    if team.chief:
        writer = _open_folder(session, run_dir, start)
        beside += _recorders(session, run_dir, start, keeper, writer, best, together)
    stream = session.batches(start)
    interrupted = False
    previous = {number: signal.signal(number, together.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        trainer.fit(
            stream,
            epochs=1,
            steps_per_epoch=session.steps - start,
            verbose=0,
            shuffle=False,
            callbacks=[*beside, together],
        )
    except KeyboardInterrupt:
        if not together.ended:  # asked again: averages may stand where the weights belong
            raise
        interrupted = True
        stop_on.check()
        if team.chief:
            keeper.save()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if team.chief:
            writer.close()
    team.wait()  # for what the chief still writes: a worker that ends ends all
    stopped, kept = team.any(best is not None and best.exhausted)[0], str(best) if best and best.step else ""
    return Outcome(run_dir, int(trainer.step.numpy()), session.steps, interrupted, stopped, kept)


def _way_on(session: Session, run_dir: Path | None) -> str:
    """What to do when losses are no numbers any more. Changed settings make another run, so this one cannot go on."""
    names = [field for field in dataclasses.asdict(session.hyperparameters) if field.endswith("learning_rate")]
    lower = f"lower {' or '.join(f'--{name}' for name in names)}"
    kept = checkpoints.steps(run_dir) if run_dir is not None else []
    if not kept:
        return f"start a new run (another --run_dir, or none) with {lower}; if that does not help, check the data"
    return (
        f"the checkpoint of step {kept[-1]} stands; start a new run from it with --init_from={run_dir}, {lower}, and "
        "another --run_dir or none; if that does not help, check the data"
    )


def _open_folder(session: Session, run_dir: Path, start: int):
    """Writes what rebuilds the run, and returns the writer of its events."""
    run_folder.write(session.config, run_dir)
    write_vocabulary(run_dir, session.vocabulary)
    for name in session.further_selections:  # run folders of their own
        run_folder.write(session.config, run_dir / name)
        write_vocabulary(run_dir / name, session.vocabulary)
    if session.text_encoder is not None and not (run_dir / TEXT_ENCODER / "config.json").exists():
        session.text_encoder.save(run_dir / TEXT_ENCODER)
    if start:
        logging.info("resuming %s at step %d", run_dir, start)
    return tf.summary.create_file_writer(str(run_dir / "events"))


def _recorders(session: Session, run_dir: Path, start: int, keeper, writer, best: BestWeights | None, together) -> list:
    """The callbacks that write to the run folder."""
    training, batch_size = session.training, session.hyperparameters.batch_size
    return [
        callbacks.Checkpoints(start, training.checkpoint_every, keeper),
        callbacks.Scalars(start, training.log_every, writer, batch_size),
        callbacks.Periodic(start, session.sample_every, Observer(session, run_dir, writer, best, together)),
        callbacks.StatusLine(start, session.steps, session.steps_per_epoch, batch_size, run_dir / "log"),
    ]


def next_command(outcome: Outcome) -> str:
    """What to type after training."""
    recipe = papers.get(RunConfig.read(outcome.run_dir).training.paper).Recipe
    if recipe.kind == "gan" or hasattr(recipe, "caption"):
        return f"t2i-sample --run_dir={outcome.run_dir}"
    if recipe.score_metrics:
        return f"t2i-evaluate --run_dir={outcome.run_dir}"
    return f"tensorboard --logdir={outcome.run_dir}"
