"""Which room may import which, no circle between modules, no long file."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("tff_personalization", "baselines", "analysis", "benchmarks")
# From the bottom up: a room imports rooms below it and its own modules. Rooms of one line do not import each other.
FLOORS = (
    ("errors", "deferred_imports", "environment"),
    ("registries", "startup", "homes", "seeds", "settings", "identity", "metrics", "rounding", "structures"),
    ("tff_personalization",),
    ("schedules", "privacy", "models"),
    ("optimizers", "aggregators", "global_weights", "tasks", "execution"),
    ("local_training", "cohorts"),
    ("client_datasets",),
    ("algorithms",),
    ("methods", "baselines", "personalization"),
    ("plugins",),
    ("experiment",),
    ("records",),
    ("analysis",),
    ("programs",),
    ("sweeps",),
    ("tools", "export", "draw", "inspect", "api"),
    ("run_experiment", "benchmarks"),
)


def _modules():
    """The project's modules by name, with the syntax tree of each."""
    paths = [ROOT / "run_experiment.py", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(names, paths, strict=True)}


@pytest.fixture(scope="module")
def imports():
    """The modules of the project that each module imports, inside functions too."""
    modules = _modules()
    found = {}
    for name, tree in modules.items():
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                imported |= whole & modules.keys() or {node.module}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        found[name] = imported & modules.keys() - {name}
    return found


def test_no_file_is_above_350_lines():
    paths = [path for folder in (*FOLDERS, "tests", "examples") for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path): path.read_text(encoding="utf-8").count("\n") for path in paths}
    assert {path: count for path, count in lines.items() if count > 350} == {}


def _room(module):
    parts = module.removeprefix("tff_personalization.").split(".")
    return parts[0]


def test_rooms_import_only_what_is_below_them(imports):
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upward = [
        f"{module} imports {other}"
        for module, others in imports.items()
        for other in others
        if _room(module) != _room(other) and floor[_room(module)] <= floor[_room(other)]
    ]
    assert upward == []


def test_no_module_imports_itself_through_others(imports):
    graphlib.TopologicalSorter(imports).prepare()  # raises CycleError
