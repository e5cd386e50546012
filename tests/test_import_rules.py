"""Who may import whom, read from the syntax trees of all modules."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "t2i_tf"


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
PAGES = [name for name in TREES if name.startswith("t2i_tf.web")]
PAPERS = sorted(name for name in TREES if name.startswith("t2i_tf.papers."))


def _is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _walk(node):
    """All nodes but those that only a type checker runs."""
    if _is_type_checking(node):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk(child)


def _modules(name, tree):
    """Full names of everything that a module imports, at its top or inside its functions."""
    package = name if SOURCES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in _walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import module` imports the module, `from module import thing` the module alone.
            yield from (f"{base}.{a.name}" if f"{base}.{a.name}" in SOURCES else base for a in node.names)


IMPORTS = {name: sorted(set(_modules(name, tree))) for name, tree in TREES.items()}
OURS = {name: [module for module in found if module.split(".")[0] == "t2i_tf"] for name, found in IMPORTS.items()}


def _inside(module, *packages):
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _offences(allowed, *packages, but=()):
    """Imports of the modules in `packages` for which `allowed(module, imported)` is False."""
    return [
        f"{name} imports {module}"
        for name, modules in OURS.items()
        if _inside(name, *packages) and name not in but
        for module in modules
        if not allowed(name, module)
    ]


def test_the_reader_sees_every_kind_of_import():
    tree = ast.parse(
        "import t2i_tf.losses as x\nfrom t2i_tf import papers\nfrom t2i_tf.papers import Context\n"
        "if TYPE_CHECKING:\n    from t2i_tf.training import loop\n"
        "def f():\n    from . import get\n    from ..data import text\n"
    )
    assert sorted(set(_modules("t2i_tf.papers.gan_int_cls", tree))) == [
        "t2i_tf.data.text",
        "t2i_tf.losses",
        "t2i_tf.papers",
    ]


def test_there_is_something_to_read():
    assert len(SOURCES) > 25 and len(PAPERS) >= 2


def test_losses_networks_and_metrics_import_nothing_of_ours_but_their_own_folder():
    own = {"t2i_tf.losses": (), "t2i_tf.networks": ("t2i_tf.networks",)}
    own |= {"t2i_tf.evaluation.metrics": (), "t2i_tf.evaluation.distributions": ()}
    for package, folders in own.items():
        assert not _offences(lambda name, module, f=folders: _inside(module, *f), package)


def test_data_knows_no_network_paper_or_training():
    forbidden = [
        f"t2i_tf.{name}"
        for name in (
            "networks",
            "papers",
            "training",
            "losses",
            "inference",
            "export",
            "evaluation",
            "checkpoints",
            "sampling",
            "web",
            "cli",
        )
    ]
    assert not _offences(lambda name, module: not _inside(module, *forbidden), "t2i_tf.data")


def test_papers_import_networks_and_losses_and_never_each_other():
    shared = ("t2i_tf.networks", "t2i_tf.losses", "t2i_tf.config", "t2i_tf.errors")
    assert not _offences(
        lambda name, module: module == "t2i_tf.papers" or _inside(module, *shared), *PAPERS, but=("t2i_tf.papers",)
    )


def test_the_registry_imports_no_paper():
    assert not _offences(lambda name, module: module in ("t2i_tf.config", "t2i_tf.errors"), "t2i_tf.papers", but=PAPERS)


def test_papers_are_reached_by_name_alone():
    assert not _offences(lambda name, module: not _inside(module, *PAPERS), "t2i_tf", but=PAPERS), (
        "only papers.get(name) gives a paper"
    )


def test_the_loop_and_what_serves_all_papers_name_none():
    keys = {name.rpartition(".")[2] for name in PAPERS}
    general = ["training", "inference", "export", "checkpoints", "sampling", "data.pipeline"]
    general = [f"t2i_tf.{name}" for name in general]
    named = [
        f"{name}: {node.value!r}"
        for name, tree in TREES.items()
        if _inside(name, *general)
        for node in _walk(tree)
        if isinstance(node, ast.Constant) and node.value in keys
    ]
    assert not named


def test_inference_never_imports_training():
    served = ("inference", "export", "sampling", "evaluation", "checkpoints", "pictures", "web")
    served = [f"t2i_tf.{name}" for name in served]
    assert not _offences(lambda name, module: not _inside(module, "t2i_tf.training"), *served)


def test_evaluation_does_not_import_what_samples():
    sampled = ("t2i_tf.sampling", "t2i_tf.describing")
    assert not _offences(lambda name, module: not _inside(module, *sampled), "t2i_tf.evaluation")


def test_nothing_but_the_command_line_opens_pages():
    pages = ("t2i_tf.cli", *(name for name in SOURCES if _inside(name, "t2i_tf.web")))
    assert not _offences(lambda name, module: not _inside(module, "t2i_tf.web"), "t2i_tf", but=pages)


def test_only_the_command_line_knows_flags():
    users = [name for name, modules in IMPORTS.items() if any(_inside(module, "absl") for module in modules)]
    assert users == ["t2i_tf.cli"]


def test_nobody_imports_the_command_line():
    assert not [name for name, modules in OURS.items() if "t2i_tf.cli" in modules]


def test_only_pages_know_gradio_and_only_the_command_line_knows_pages():
    users = [name for name, modules in IMPORTS.items() if any(_inside(module, "gradio") for module in modules)]
    assert users and all(_inside(name, "t2i_tf.web") for name in users)
    assert not _offences(lambda name, module: not _inside(module, "t2i_tf.web"), "t2i_tf", but=("t2i_tf.cli", *PAGES))


def test_tools_import_the_command_line_alone():
    for path in sorted((ROOT / "tools").glob("*.py")):
        modules = {
            node.module
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("t2i_tf")
        }
        assert modules == {"t2i_tf.cli"}, path.name


def _defines(node):
    if _is_type_checking(node):
        return True
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)  # a docstring
    definitions = (
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
    )
    return isinstance(node, definitions)


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_does_nothing_at_import_but_define(name):
    acts = [f"line {node.lineno}: {ast.unparse(node)[:60]}" for node in TREES[name].body if not _defines(node)]
    assert not acts


def test_the_command_line_loads_no_tensorflow():
    program = (
        "import sys\nimport t2i_tf, t2i_tf.cli, t2i_tf.config, t2i_tf.papers\n"
        "t2i_tf.papers.hyperparameter_fields('gan_int_cls')\n"
        "heavy = {'tensorflow', 'keras', 'tensorflow_hub', 'torch', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
