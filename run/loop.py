"""The order of a run, the same for every program: step by step, with outputs between, and whatever ends it early
leaves the last good state. Of several processes (run.ranks) all do the same steps, and end together."""

import contextlib
import signal
import sys
import time

from tqdm import tqdm

from run import ranks
from run.flags import RunError, Spoilt, Terminated

MOVING = 10  # log steps from one renewal of what takes long to write to the next
STOPS = (None, RunError, KeyboardInterrupt, Terminated)  # why a process wants all to stop, the gravest last


@contextlib.contextmanager
def uninterrupted():
    """Hold back Ctrl-C and SIGTERM until the block has ended, so that what belongs together changes together."""
    pending, signals = [], (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(each, lambda number, _: pending.append(number)) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, previous, strict=True):
            signal.signal(each, handler)
    if pending:
        raise Terminated if signal.SIGTERM in pending else KeyboardInterrupt


@contextlib.contextmanager
def together(seconds=ranks.SECONDS):
    """A block that all processes enter, within so many seconds, or none: where one wants to stop, it raises in each.
    What belongs together changes in it, and processes may exchange what they have."""
    with uninterrupted():
        stop = ranks.vote(0, seconds)
        try:
            end_if(stop)
            yield
        except Exception as error:
            error.everywhere = True
            raise


def end_if(stop):
    """Raise what all processes have agreed to stop for, if anything."""
    if stop:
        error = STOPS[stop]("another process has failed" if STOPS[stop] is RunError else "")
        error.everywhere = True
        raise error


def fit(learner, run, outputs, *, total, log_step, shown, header, begin=None, page=None, shorter=None):
    """Learn until `total` steps are done (epochs or iterations: run.unit), with a progress bar.

    learner: `done`, how many steps are done, and four methods. learn() does the work of a step, and may be interrupted.
    commit() completes the step, and may not; it returns the step's metrics by name, or None if there are none this
    time. undo() takes back what an interrupted learn() has changed. state() gives what a checkpoint keeps.
    Of several processes the first alone has a Run, the others an Elsewhere; in commit(), state() and outputs(), and in
    learn() where they are `together`, they may exchange what they have.
    outputs(moving, last) -> a function that writes the outputs of this moment. It is called every log_step steps, and
    at the last one; moving: whether to renew what moves, too, which takes long.
    header: what to print at the start. begin(): called once before the first step. page(folder): called when a moment
    has been saved, to show it. shown: the metrics on the bar. shorter: what makes a long run short, for a hint.
    """
    unit, metrics, first, patience = run.unit, {}, learner.done + 1, ranks.PATIENCE
    if first > total:
        return print(f"'{run.folder}' is finished: {learner.done} {unit}s; raise -num_{unit}s to go on")
    print(header)
    print(f"{unit}s {first} to {total}", flush=True)
    run.open_logs(learner.done)
    bar = tqdm(total=total, initial=first - 1, unit=unit, disable=True if ranks.rank() else None)
    try:
        if begin:
            begin()
        for done in range(first, total + 1):
            begun = time.perf_counter()
            metrics = step(learner, run, patience) or metrics
            patience = ranks.SECONDS + 4 * (time.perf_counter() - begun)
            bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown if name in metrics}, refresh=False)
            bar.update()
            last = done == total
            if last or done % log_step == 0:
                moving = last or done < first + log_step or done // log_step % MOVING == 0
                line = f"{unit} {done}/{total}  " + "  ".join(f"{name} {metrics[name]:.4g}" for name in shown)
                with together():
                    state, write = learner.state(), outputs(moving, last)
                run.save(state, done, write, tell(line, page, run.folder), moving, last)
                del state, write  # which may be large
                patience = ranks.PATIENCE  # the first may be writing
            if done == first + 2 and not last:  # the first prepares much that the others find
                tell_time_left(unit, time.perf_counter() - begun, total - done, shorter)
        run.wait()
        with contextlib.suppress(KeyboardInterrupt), uninterrupted():
            failed = ranks.vote(0, ranks.PATIENCE)
        end_if(failed)
    except (KeyboardInterrupt, RunError, ranks.Lost) as stop:
        stop_early(learner, run, stop)
    finally:
        bar.close()
        run.close()
    print(f"done: {learner.done} {unit}s; open '{run.folder}/index.html' to see what came of them")


def step(learner, run, patience=ranks.PATIENCE):
    """One step, whole or not at all: the change of the state and its row in the log belong together. patience: seconds
    that another process may be behind."""
    try:
        learner.learn()
        with together(patience):
            metrics = learner.commit()
            if metrics:
                run.log(learner.done, metrics)
    except BaseException:
        with uninterrupted():
            learner.undo()
        raise
    return metrics


def stop_early(learner, run, stop):
    """Write what is left to write, save the last good state, and end as `stop` asks. Where a process is missing, the
    last state is the one that was saved last."""
    if run.pending:
        tqdm.write("stopping: what is left is being written")
    with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # another Ctrl-C changes nothing
        try:
            if not isinstance(stop, ranks.Lost) and not hasattr(stop, "everywhere"):
                kind = RunError if isinstance(stop, RunError) else type(stop)
                ranks.vote(STOPS.index(kind), ranks.PATIENCE)
            state = None if isinstance(stop, (ranks.Lost, Spoilt)) else learner.state()
        except ranks.Lost as lost:
            stop, state = lost, None
        run.wait()
        if state is not None:
            run.save_checkpoint(state, learner.done)
    if isinstance(stop, ranks.Lost):
        raise RunError(f"{stop}: {run.newest()}; the same command goes on from there") from None
    ranks.hush()
    if isinstance(stop, Spoilt):
        raise RunError(f"{stop} ({run.newest()})") from None
    saved = f"{run.unit} {learner.done} is saved in '{run.folder}'"
    if isinstance(stop, KeyboardInterrupt):
        raise type(stop)(f"interrupted: {saved}; the same command goes on from there") from None
    raise RunError(f"{stop} ({saved})") from None


def tell(line, page, folder):
    """A function that tells of a moment that is saved: by page(folder) and, where there is no progress bar, a line."""

    def told():
        if page:
            page(folder)
        if not sys.stderr.isatty():
            print(line, flush=True)

    return told


def tell_time_left(unit, seconds, steps, shorter):
    left = seconds * steps
    hint = f"; on this CPU, {shorter}" if shorter and left > 1800 else ""
    tqdm.write(f"one {unit} took {seconds:.2g} s: about {duration(left)} to go{hint}")


def duration(seconds):
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
