"""Who may import whom: the paper's files know nothing of the rooms, and no import goes in a circle."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOWEST = {"utils", "reader", "field", "data", "langevin", "model", "reference"}  # what everything else may import
BELOW = {  # room: what it may import beside itself and the lowest
    "reader": set(), "field": set(), "run": set(), "fast": set(), "judge": {"run"}, "papers": {"run", "judge"},
    "stg": {"run", "fast", "judge", "recover"},
    **dict.fromkeys(("dyngen", "videogan"), {"run", "fast", "judge"}),
}


@functools.cache
def imports():
    """{module: modules of the project that it imports, anywhere in it}."""
    files = [*ROOT.glob("*.py"), *(path for room in BELOW for path in (ROOT / room).glob("*.py"))]
    known = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    found = {}
    for name, path in known.items():
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[name] = names & known.keys() - {name}
    return found


def room(module):
    return module.split(".")[0]


def test_rooms_know_only_the_rooms_below_them_and_the_papers_files_none():
    for module, found in imports().items():
        rooms = {room(each) for each in found}
        if room(module) in BELOW:
            assert rooms <= BELOW[room(module)] | {room(module)} | LOWEST, module
        if module in LOWEST:
            assert rooms <= LOWEST, module


def test_no_import_goes_in_a_circle():
    graph = {name: {each for each in found if each not in BELOW} for name, found in imports().items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) > 20  # CycleError names the circle


def test_sampling_needs_no_learning_and_systems_do_not_know_each_other():
    found = imports()
    assert "main" not in found["sample"] | found["recover"]
    for name in ("main", "sample", "recover", "stg.settings", "stg.outputs"):
        assert not {"dyngen", "videogan"} & {room(each) for each in found[name]}


def test_a_start_waits_for_no_library_that_only_the_end_needs():
    """At the end of a dry run all but the clip is prepared; Adam, too, has to do without the compiler."""
    needless = {"torch._dynamo", "sympy", "scipy", "matplotlib", "tensorboard", "jinja2", "imageio"}
    code = f"""if 1:
        import sys, torch, main, main_dyn_G, run.adam
        w = torch.nn.Parameter(torch.ones(2))
        w.grad, adam = torch.ones(2), run.adam.Adam([w], 0.1, 0.5)
        adam.step(), adam.load_state_dict(adam.state_dict()), adam.zero_grad()
        assert main.main(["-dry_run"]) == main_dyn_G.main(["-dry_run"]) == 0
        assert not {needless} & set(sys.modules), {needless} & set(sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
