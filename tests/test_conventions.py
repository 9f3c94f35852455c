"""What the code base promises about itself, read from its source."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest
from source_trees import FLOORS, ROOT, SOURCES, TESTS, name_of, tree_of, walked

from byrote.probes.registry import REGISTRY

TOP_LEVEL = {
    *FLOORS, "tests", "docs", ".ci", ".git", ".github", ".gitignore", "pyproject.toml", "constraints.txt", "Makefile",
    "README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "CONTRIBUTING.md", "MANIFEST.in", ".pre-commit-config.yaml",
    "SECURITY.md", "requirements.lock", "requirements-build.lock",
}  # fmt: skip
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 80


@pytest.fixture(scope="module", autouse=True)
def _read_once() -> Iterator[None]:
    gc.disable()  # a million nodes
    yield
    _ = tree_of.cache_clear(), walked.cache_clear(), gc.enable()


def first_party(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, module) of everything of ours that is imported anywhere in a file, by statement or by name in a string."""
    for node in walked(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, package if node.level else node.module or ""
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"\w+(\.\w+)+", node.value)
        ):
            yield node.lineno, node.value  # importlib.import_module and tables of lazy names


ENTRY_POINT_GROUPS = {"byrote.arms", "byrote.formats", "byrote.sources"}  # what other packages offer


def floor_of(module: str) -> int:
    """The floor a module of ours stands on; -1 for anybody else's."""
    if module in ENTRY_POINT_GROUPS:
        return -1
    top, _, rest = module.partition(".")
    return -1 if top != "byrote" else FLOORS.get(rest.split(".")[0], FLOORS["app"])


def folder_of(module: str) -> str:
    """``byrote.probes.spec`` as ``probes/spec``, ``byrote.cli`` as ``app/cli``."""
    parts = module.split(".")[1:]
    return "/".join(parts if parts and parts[0] in FLOORS else ["app", *parts])


def module_of(file: Path) -> str:
    """The name under which a source file is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "app" else parts
    return ".".join(("byrote", *parts)).removesuffix(".__init__")


def test_imports_between_floors_point_down():
    wrong = []
    for file in SOURCES:
        package = file.relative_to(ROOT).parts[0]
        for line, module in first_party(tree_of(file), package):
            if floor_of(module) > FLOORS[package]:
                wrong.append(f"{name_of(file)}:{line} imports {module}")
    assert wrong == []


def imported_modules(file: Path) -> set[str]:
    """Modules of ours that a file imports anywhere in it, inside functions too; type checking apart."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree_of(file)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        waiting += ast.iter_child_nodes(node)
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all others of its group (Tarjan's strongly connected components)."""
    sorter = networkx.DiGraph([(module, other) for module, others in graph.items() for other in others])
    return sorted(sorted(group) for group in networkx.strongly_connected_components(sorter) if len(group) > 1)


def test_no_modules_import_each_other_in_a_circle():
    modules = {module_of(file): file for file in SOURCES}
    graph = {}
    for module, file in modules.items():
        named = {name for name in imported_modules(file) if name in modules and name != module}
        # `from byrote.probes import figures` names the package only to reach the module
        graph[module] = {n for n in named if not any(other.startswith(f"{n}.") for other in named)}
    assert circles(graph) == []


def test_the_search_for_circles_finds_one():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_module_reads_another_ones_private_names():
    wrong = []
    for file in SOURCES:
        ours: set[str] = set()  # names bound to modules of ours
        for node in walked(tree_of(file)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("byrote"):
                wrong += [
                    f"{name_of(file)}:{node.lineno} {a.name}" for a in node.names if a.name.startswith("_")
                ]
                names = {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
                ours |= {
                    name
                    for name, full in names.items()
                    if (ROOT / folder_of(full)).with_suffix(".py").exists()
                }
        for node in walked(tree_of(file)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ours
                and re.fullmatch(r"_[a-z]\w*", node.attr)
            ):
                wrong.append(f"{name_of(file)}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


SAME_THING = {
    "app/compare.py": "a verb and its page",
    "app/export.py": "a verb and what the pages export",
    "probes/attention.py": "stored patterns and their figure",
}


def test_two_files_of_one_floor_have_one_name_only_where_they_are_the_same_thing():
    files: dict[str, list[str]] = {}
    for file in SOURCES:
        if not file.name.startswith("__"):
            files.setdefault(f"{file.relative_to(ROOT).parts[0]}/{file.name}", []).append(name_of(file))
    assert {name for name, found in files.items() if len(found) > 1} == set(SAME_THING)


ONE_PLACE = {
    # what -> (how it looks in code, the files that may hold it)
    # a cache of the model hub's is nobody's results; the log of a server is gone when it ends
    "changing a disk": (
        r"os\.(replace|rename)\(|shutil\.rmtree\(|\.mkdir\(|\.unlink\(|\.write_(text|bytes)\(|open\(\"[wax]",
        {
            "checkpoints/atomic.py",
            "checkpoints/formats/hub_source.py",
            "app/cli/dashboard.py",
        },
    ),
    # a tokenizer.json can hang, panic and abort: it does so in a process of its own
    "running tokenizers": (r"(from|import) tokenizers\b", {"checkpoints/tokenizer_worker.py"}),
    # a cell of CSV may begin a formula
    "writing CSV": (r"\.to_csv\(|csv\.writer\(", {"probes/csv_text.py"}),
    # a job hands its open lock over to its processes, which filelock cannot
    "locks": (r"\bfcntl\.|FileLock\(", {"checkpoints/atomic.py", "app/dashboard/jobs.py"}),
    # tail_mass' percentiles of perplexity are its definition; calibration tries the interval of a median
    "quantiles": (
        r"np\.(nan)?(quantile|percentile)\(",
        {
            "probes/statistics.py",
            "probes/text/perplexity.py",
            "probes/calibration.py",
            "probes/results/rows.py",
        },
    ),
}


@pytest.mark.parametrize("what", ONE_PLACE)
def test_there_is_one_place_for(what):
    pattern, places = ONE_PLACE[what]
    found = {name_of(file) for file in SOURCES if re.search(pattern, file.read_text(encoding="utf-8"))}
    assert found <= places


def test_nothing_of_the_tests_is_imported_by_the_packages():
    helpers = {"tests", "conftest", *(file.stem for file in TESTS if file.parent == ROOT / "tests")}
    wrong = [
        f"{name_of(file)}:{line} imports {module}"
        for file in SOURCES
        for line, module in first_party(tree_of(file), "")
        if module.split(".")[0] in helpers
    ]
    assert wrong == []


def test_the_top_level_holds_nothing_else():
    ignored = {line.strip("/\n ") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.endswith(".egg-info")}
    assert found - TOP_LEVEL - ignored == set()


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes of a module, and public methods of public classes."""
    for node in tree.body:
        if not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef) and not any("Protocol" in ast.unparse(base) for base in node.bases):
            for part in node.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


def test_everything_public_says_what_it_is():
    silent = []
    for file in SOURCES:
        if not ast.get_docstring(tree_of(file)):
            silent.append(name_of(file))
        for name, node in public_definitions(tree_of(file)):
            overloaded = any("overload" in ast.unparse(d) for d in getattr(node, "decorator_list", ()))
            if not overloaded and not ast.get_docstring(node):
                silent.append(f"{name_of(file)}:{node.lineno} {name}")
    assert silent == []


NO_TERMS = {"told", "asked", "kept", "came", "held", "mend", "doubted", "stills", "material", "remembering"}
TERMS = {
    "held_out",
    "n_held_out",
    "held_out_best",
    "held_out_loss",
}  # held-out data is what everybody calls it


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Functions, classes, parameters and fields, with their lines."""
    for node in walked(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.lineno, node.target.id


def words_of(name: str) -> set[str]:
    return set(re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().split("_"))


def test_names_are_words_that_one_would_search_for():
    wrong = []
    for file in SOURCES:
        names = [*((1, part) for part in module_of(file).split(".")), *names_in(tree_of(file))]
        wrong += [
            f"{name_of(file)}:{line} {n}" for line, n in names if words_of(n) & NO_TERMS and n not in TERMS
        ]
    assert wrong == []


def test_the_search_for_such_names_finds_them():
    code = "def f(asked): ...\ndef _was_told(): ...\nclass KeptRows:\n    held: int"
    found = [name for _, name in names_in(ast.parse(code)) if words_of(name) & NO_TERMS]
    assert sorted(found) == ["KeptRows", "_was_told", "asked", "held"]


def test_files_and_functions_stay_readable():
    long = []
    for file in (*SOURCES, *TESTS):
        if (n := len(file.read_text().splitlines())) > MAX_FILE_LINES:
            long.append(f"{name_of(file)}: {n} lines")
        for node in walked(tree_of(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name_of(file)}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Ways to run code that came with data, or to hide errors.

    The name of the error torch raises for a refused file, `pickle.UnpicklingError`, is no such way.
    """
    for node in walked(tree):
        if isinstance(node, ast.Import):
            found = [a.name for a in node.names if a.name.split(".")[0] in PICKLES - {"pickle"} or a.asname]
            yield from ((node.lineno, f"import {name}") for name in found if name.split(".")[0] in PICKLES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            yield from ((node.lineno, a.name) for a in node.names if a.name != "UnpicklingError")
        elif (
            isinstance(node, ast.Attribute)
            and dotted(node.value) == "pickle"
            and node.attr != "UnpicklingError"
        ):
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        elif isinstance(node, ast.Call):
            yield from unsafe_call(node)


def dotted(node: ast.AST) -> str:
    """A name and its attributes, `os.system`; of anything else the attributes alone, `.system`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def unsafe_call(node: ast.Call) -> Iterator[tuple[int, str]]:
    called = dotted(node.func)
    meant = {"weights_only", "trust_remote_code", "allow_pickle", "shell"}
    options = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in meant}
    if called in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "os.system"}:
        yield node.lineno, called
    if called.endswith("torch.load") and options.get("weights_only") != "True":
        yield node.lineno, "torch.load without weights_only=True"
    if options.get("trust_remote_code", "False") != "False":
        yield node.lineno, "trust_remote_code"
    if options.get("allow_pickle", "False") != "False" or called.endswith("read_pickle"):
        yield node.lineno, "pickle"
    if options.get("shell", "False") != "False":
        yield node.lineno, "shell"


def test_no_code_is_ever_run_from_data():
    found = [f"{name_of(file)}:{line} {what}" for file in SOURCES for line, what in unsafe(tree_of(file))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle as p", "pickle.loads(data)", "from pickle import loads", "import dill", "eval('1')", "exec(text)", "torch.load(path)", "np.load(f, allow_pickle=True)",
        "torch.load(path, weights_only=False)", "f(trust_remote_code=True)", "try:\n    f()\nexcept:\n    pass", "pd.read_pickle(f)",
        "subprocess.run(line, shell=True)", "os.system(line)",
    ],
)  # fmt: skip
def test_the_search_for_unsafe_code_finds_it(code):
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "model.eval()",
        "torch.load(path, weights_only=True)",
        "f(trust_remote_code=False)",
        "re.compile('x')",
        "import pickle\nf(pickle.UnpicklingError)",
    ],
)
def test_the_search_for_unsafe_code_lets_the_rest_be(code):
    assert not list(unsafe(ast.parse(code)))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_probe_states_what_it_is(name):
    info = REGISTRY[name]
    for text in (info.unit, info.source, info.summary, info.chance, info.module):
        assert text.strip()
    assert info.kind in {"head", "model", "weights", "direct", "verdict"}
    assert bool(info.passes) == (info.kind == "direct")
    assert info.better in {"higher", "lower", None}
    assert info.main_metric in info.metrics
    assert all(meaning.strip() for meaning in info.metrics.values())
    assert set(info.units) <= set(info.metrics)
    assert set(info.directions) <= set(info.metrics)
    assert set(info.needs) <= set(REGISTRY)
    assert info.range is None or info.range[0] < info.range[1]
    assert (info.kind in {"head", "model", "direct"}) == bool(info.stimuli)
    assert info.default or info.kind == "direct"
    assert {m.split("@")[1] for m in info.metrics if "@" in m} <= set(info.stimuli[1:])


@pytest.mark.parametrize("name", REGISTRY)
def test_every_probe_has_a_file_that_gives_its_source_and_its_steps(name):
    """Title, then `Source: ...`, then the computation as steps numbered from 1."""
    module = importlib.import_module(REGISTRY[name].module)
    title, rest = inspect.getdoc(module).split("\n", 1)
    assert title.endswith((".", "?"))
    assert rest.strip().startswith("Source: ")
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", rest, re.MULTILINE)]
    assert len(steps) >= 2
    assert steps == list(range(1, len(steps) + 1))
    probe = REGISTRY[name].implementation()
    assert probe.info == REGISTRY[name], "what is read from the file is what the file says when it is run"
    assert probe.__name__ == Path(module.__file__).stem == name
    assert inspect.getdoc(probe.update)


def test_every_file_that_makes_a_probe_is_found():
    bound = {
        (node.name, name_of(file))
        for file in SOURCES
        for node in walked(tree_of(file))
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "probe"
    }
    ours = {
        name: info for name, info in REGISTRY.items() if info.module.startswith("byrote.")
    }  # no test's own
    listed = {(name, folder_of(info.module) + ".py") for name, info in ours.items()}
    assert bound == listed


def results_side() -> list[str]:
    """Modules a reader of results imports; none of them may cost the import of torch."""
    named = ["byrote", "byrote.checkpoints", "byrote.probes", "byrote.interp"]
    named += [
        f"byrote.probes.{name}"
        for name in ("results", "results.table", "statistics", "registry", "results.derived", "stimuli")
    ]
    named += [
        "byrote.probes.sweep.plan",
        "byrote.probes.sweep.run",
        "byrote.probes.sweep.folder",
        "byrote.probes.heads.induction",
        "byrote.checkpoints.formats",
    ]
    later = [
        "probes/trajectory",
        "probes/calibration.py",
        "probes/simulated.py",
        "probes/degradation.py",
        "probes/figures",
        "app/report",
        "app/cli",
    ]
    for place in later:
        files = sorted((ROOT / place).rglob("[!_]*.py")) if (ROOT / place).is_dir() else [ROOT / place]
        named += [module_of(f) for f in files if f.is_file()]
    return named


def test_reading_results_never_imports_torch(run_prepared):
    code = (
        "import importlib, sys\nguilty = []\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if any(m in sys.modules for m in ('torch', 'transformers', 'transformer_lens')):\n"
        "        guilty.append(name)\n"
        "        break\n"
        "print(guilty)"
    )
    assert run_prepared(code, *results_side()) == "[]"


def test_no_test_can_pass_without_checking_anything():
    """Every test asserts something, expects an error, fails by itself, or hands over to a helper that does."""
    idle = []
    for file in TESTS:
        functions = [n for n in walked(tree_of(file)) if isinstance(n, ast.FunctionDef)]
        helpers = {f.name for f in functions if asserts(f)}
        idle += [
            f"{name_of(file)}:{test.lineno} {test.name}"
            for test in functions
            if test.name.startswith("test_") and not asserts(test) and not helpers & called_in(test)
        ]
    assert idle == []


def called_in(node: ast.AST) -> set[str]:
    """Names of what is called, without what stands before their dots."""
    return {dotted(n.func).rpartition(".")[2] for n in ast.walk(node) if isinstance(n, ast.Call)}


def asserts(function: ast.FunctionDef) -> bool:
    """Whether a function can fail of itself: an assertion, numpy's too, an expected error, or a process that must end well."""
    nodes = list(ast.walk(function))
    return (
        any(isinstance(node, ast.Assert) for node in nodes)
        or any(name.startswith("assert_") or name in ("raises", "fail") for name in called_in(function))
        or any(
            isinstance(n, ast.keyword) and n.arg == "check" and ast.unparse(n.value) == "True" for n in nodes
        )
    )


def test_a_test_that_checks_nothing_is_found():
    code = "def test_a():\n    f()\ndef test_b():\n    assert f()\ndef test_c():\n    np.testing.assert_equal(1, 1)"
    assert [asserts(function) for function in ast.parse(code).body] == [False, True, True]
