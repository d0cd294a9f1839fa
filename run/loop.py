"""The order of a run, the same for every program: step by step, with outputs between, and whatever ends it early
leaves the last good state."""

import contextlib
import signal
import sys
import time

from tqdm import tqdm

from run.flags import RunError


@contextlib.contextmanager
def uninterrupted():
    """Hold back Ctrl-C until the block has ended, so that what belongs together changes together."""
    pending = []
    previous = signal.signal(signal.SIGINT, lambda *_: pending.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt


def fit(learner, run, outputs, *, total, log_step, shown, shorter=None):
    """Learn from step learner.done + 1 to step `total` (steps are epochs or iterations: run.unit), with a progress bar.

    learner has `done`, how many steps are, and four methods: learn() does the work of a step, and may be interrupted;
    commit() completes it, and may not: it returns the step's metrics by name, or None if there are none this time;
    undo() takes back what an interrupted learn() has changed; state() gives what a checkpoint keeps.
    outputs(last) gives a function that writes the outputs of the moment; it is called every log_step steps and at the
    last one. shown: the metrics on the bar. shorter: what makes a long run short, for a hint.
    """
    first, metrics = learner.done + 1, {}
    bar = tqdm(total=total, initial=first - 1, unit=run.unit, disable=None)
    try:
        for done in range(first, total + 1):
            begun = time.perf_counter()
            metrics = step(learner, run) or metrics
            bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown if name in metrics}, refresh=False)
            bar.update()
            if done % log_step == 0 or done == total:
                write = outputs(done == total)
                run.save(learner.state(), done, done == total,
                         lambda done=done, write=write, metrics=metrics: (
                             write(), tell(f"{run.unit} {done}/{total}", metrics, shown)))
            if done == first + 2 and done < total:  # the first prepares much that the others find
                tell_time_left(run.unit, time.perf_counter() - begun, total - done, shorter)
        run.wait()
    except (KeyboardInterrupt, RunError) as stop:
        stop_early(learner, run, stop)
    finally:
        bar.close()
        run.close()


def step(learner, run):
    """One step, whole or not at all: the change of the state and its row in the log belong together."""
    try:
        learner.learn()
        with uninterrupted():
            metrics = learner.commit()
            if metrics:
                run.log(learner.done, metrics)
    except BaseException:
        with uninterrupted():
            learner.undo()
        raise
    return metrics


def stop_early(learner, run, stop):
    """Write what is left to write, save the last good state, and end as `stop` asks."""
    if run.pending:
        tqdm.write("stopping: what is left is being written")
    with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # another Ctrl-C changes nothing
        run.wait()
        run.save_checkpoint(learner.state(), learner.done)
    saved = f"{run.unit} {learner.done} is saved in '{run.folder}'"
    if isinstance(stop, KeyboardInterrupt):
        raise KeyboardInterrupt(f"interrupted: {saved}; the same command goes on from there") from None
    raise RunError(f"{stop} ({saved})") from None


def tell_time_left(unit, seconds, steps, shorter):
    left = seconds * steps
    hint = f"; on this CPU, {shorter}" if shorter and left > 1800 else ""
    tqdm.write(f"one {unit} took {seconds:.2g} s: about {duration(left)} to go{hint}")


def tell(moment, metrics, shown):
    """A line about a moment, such as 'epoch 10/500', whose pictures are written, where there is no progress bar."""
    if not sys.stderr.isatty():
        print(moment, *(f"{name} {metrics[name]:.4g}" for name in shown), sep="  ", flush=True)


def duration(seconds):
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
