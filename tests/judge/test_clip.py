"""A run's judge, whose table is there before its videos."""

import threading

import pytest

from data import InputError
from judge.clip import Judge
from judge.tables import TextureTable


def test_the_table_is_made_in_the_background_and_once(tmp_path, clip):
    begun, gate, threads = threading.Event(), threading.Event(), []

    def make_table():
        threads.append(threading.current_thread())
        begun.set()
        assert gate.wait(60)
        return TextureTable(clip, lds=0)

    judge = Judge("evaluation", make_table, {})
    judge.prepare()
    assert begun.wait(60)
    gate.set()
    for name in "ab":
        judge.report(tmp_path, {name: clip})
        assert f"\n{name}," in (tmp_path / "evaluation.csv").read_text()
    assert len(threads) == 1 and threads[0] is not threading.current_thread()


@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_wrong_with_the_clips_is_told_at_the_end(ahead, tmp_path, clip, capsys):
    for error in (InputError("no clip"), OSError("no disk")):
        def make_table(error=error):
            raise error

        judge = Judge("evaluation", make_table, {})
        if ahead:
            judge.prepare()
        if isinstance(error, InputError):
            judge.report(tmp_path, {"a": clip})
            assert capsys.readouterr().out == "not judged: no clip\n"
        else:
            with pytest.raises(OSError, match="no disk"):
                judge.report(tmp_path, {"a": clip})
    assert not list(tmp_path.iterdir())
