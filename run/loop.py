"""The order of a run: learn step by step, and leave the last good state however it ends."""

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


def fit(learner, run, report, shown, shorter):
    """Learn until all is done, with a progress bar; whatever ends it early leaves the last good state.

    With run.unit an epoch (or an iteration): learner has args.num_epochs, epoch, state() and learn_epoch(log) ->
    metrics, which calls log(epoch, metrics) as part of the change of its state; report(metrics) is called after each;
    shown: the metrics on the bar; shorter: what makes a long run on a CPU a short one, or None.
    """
    unit, total = run.unit, getattr(learner.args, f"num_{run.unit}s")
    learn, first = getattr(learner, f"learn_{unit}"), getattr(learner, unit) + 1
    bar = tqdm(total=total, initial=first - 1, unit=unit, disable=None)
    try:
        for done in range(first, total + 1):
            begun = time.perf_counter()
            metrics = learn(run.log)
            bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown if name in metrics}, refresh=False)
            bar.update()
            report(metrics)
            if done == first + 2 and done < total:  # the first prepares much that the others find
                seconds = time.perf_counter() - begun
                left = seconds * (total - done)
                slow = shorter and left > 1800 and learner.args.device.type == "cpu"
                hint = f"; on this CPU, {shorter}" if slow else ""
                tqdm.write(f"one {unit} took {seconds:.2g} s: about {duration(left)} to go{hint}")
        run.wait()
    except (KeyboardInterrupt, RunError) as stop:
        done = getattr(learner, unit)
        if run.pending:
            tqdm.write("stopping: what is left is being written")
        with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # another Ctrl-C changes nothing
            run.wait()
            run.save_checkpoint(learner.state(), done)
        saved = f"{unit} {done} is saved in '{run.folder}'"
        if isinstance(stop, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted: {saved}; the same command goes on from there") from None
        raise RunError(f"{stop} ({saved})") from None
    finally:
        bar.close()
        run.close()


def tell(moment, metrics, shown):
    """A line about a moment, such as 'epoch 10/500', whose pictures are written, where there is no progress bar."""
    if not sys.stderr.isatty():
        print(moment, *(f"{name} {metrics[name]:.4g}" for name in shown), sep="  ", flush=True)


def duration(seconds):
    """A length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
