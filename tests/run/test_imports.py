"""Who may import whom: the paper's files know nothing of the rooms, and no import goes in a circle."""

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("reader", "field", "run", "fast", "judge", "stg", "dyngen", "videogan", "papers")
LOWEST = ("utils", "reader", "field", "data", "langevin", "model", "reference")  # what everything else may import


def modules():
    """Every module of the project by its name, and its file."""
    files = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports():
    """{module: modules of the project that it imports, anywhere in it}."""
    known, found = modules(), {}
    for name, path in known.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            found[name] |= {each for each in names if each in known} - {name}
    return found


def room(module):
    return module.split(".")[0]


def test_the_papers_files_import_no_room():
    for module in LOWEST:
        assert not {room(each) for each in imports()[module]} - set(LOWEST), module


def test_no_import_goes_in_a_circle():
    graph = {name: {each for each in found if each not in ROOMS} for name, found in imports().items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) > 20  # CycleError names the circle


def test_rooms_know_only_the_rooms_below_them():
    below = {"reader": set(), "field": {"field"}, "run": {"run"}, "fast": {"fast"}, "judge": {"judge", "run"}}
    below |= {system: {system, "run", "fast", "judge"} for system in ("dyngen", "videogan")}
    below["papers"] = {"papers", "run", "judge"}
    below["stg"] = {"stg", "run", "fast", "judge", "recover"}
    for module, found in imports().items():
        if room(module) in ROOMS:
            assert {room(each) for each in found} <= below[room(module)] | set(LOWEST), module


def test_sampling_needs_no_learning_and_systems_do_not_know_each_other():
    found = imports()
    assert "main" not in found["sample"] | found["recover"]
    for name in ("main", "sample", "recover", "stg.settings", "stg.outputs"):
        assert not {"dyngen", "videogan"} & {room(each) for each in found[name]}


def test_a_start_waits_for_no_library_that_only_the_end_needs(run_script):
    needless = ("torch._dynamo", "sympy", "scipy", "matplotlib", "tensorboard", "jinja2", "imageio")
    code = f"import atexit, sys; atexit.register(lambda: print(*(set({needless}) & set(sys.modules)), file=sys.stderr))"
    for script in ("main.py", "main_dyn_G.py"):  # at the end of a dry run all but the clip is prepared
        done = run_script(["-dry_run"], script, before=code)
        assert done.returncode == 0 and not done.stderr.strip(), script
