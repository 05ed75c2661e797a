"""docs/architecture.md's layers, read from the imports, and what `jaxseg` may not import at all."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = ("train", "evaluate", "predict", "convert", "plan", "export", "api")
EXPERIMENTAL = ("mesh_utils", "multihost_utils", "topologies")  # of jax.experimental
FORBIDDEN = ("tensorflow", "tensorflow_datasets", "tensorboard", "torch", "transformers", "clu")

# Layer -> the layers that it may import. `typing`, `resampling` and `statistics` are open to all; a layer may import
# itself unless it is a system.
LAYERS = {
    "ops": (),
    "nn": ("ops",),
    "weights": (),
    "encoders": ("ops", "nn", "weights"),
    "decoders": ("ops", "nn", "weights"),
    "pooling": ("ops", "nn", "weights"),
    "losses": ("ops",),
    "postprocess": ("ops",),
    "coco": (),
    "metrics": ("ops", "text", "coco"),
    "text": (),
    "preprocess": ("text",),
    "filenames": (),
    "drawing": (),
    "visualize": ("drawing",),
    "result": ("filenames", "visualize", "preprocess", "coco"),
    "finalize": ("result",),
    "task": (),
    "config": (),
    "systems": (
        "ops", "nn", "encoders", "decoders", "pooling", "losses", "postprocess", "metrics", "text", "result", "finalize",
        "task", "config", "weights", "sharding",
    ),
}  # fmt: skip
MAY_NOT_BE_IMPORTED = (*PROGRAMS, "systems")  # by the layers above and by what stands beside the programs


def imports(path):
    """[(line, dotted name)] of every import in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def top_imports(path):
    """The same, outside of functions: what importing the file imports."""
    found, todo = [], list(ast.parse(path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def violations(root):
    """`file:line: what` for every import that goes against the layers."""
    wrong = []
    for path in sorted((root / "jaxseg").rglob("*.py")):
        parts = path.relative_to(root / "jaxseg").with_suffix("").parts
        layer, where = parts[0], path.relative_to(root)
        for line, name in imports(path):
            if not name.startswith("jaxseg."):
                if name.split(".")[0] in ("input_pipeline", "tests", "benchmarks", "configs"):
                    wrong.append(f"{where}:{line}: jaxseg imports {name}")
                continue
            target = name.split(".")[1]
            if target in ("typing", "resampling", "statistics"):
                continue
            if layer in LAYERS:
                own = target == layer and (layer != "systems" or name.split(".")[2] == parts[1])
                if layer == "encoders" and target == "encoders":
                    own = name.split(".")[2] == parts[1] or parts[1:] == ("backbones",)  # it finds them by name
                if not own and target not in LAYERS[layer]:
                    wrong.append(f"{where}:{line}: {layer} imports {name}")
            elif layer not in PROGRAMS and layer != "__init__" and target in PROGRAMS:
                wrong.append(f"{where}:{line}: {layer} imports the program {name}")
        for line, name in top_imports(path):
            if name.split(".")[0] in FORBIDDEN:
                wrong.append(f"{where}:{line}: imports {name} at import time")
            if name.startswith("jax.experimental") and name.split(".")[2] not in EXPERIMENTAL:
                wrong.append(f"{where}:{line}: imports {name}")
    for path in sorted((root / "input_pipeline").rglob("*.py")):
        for line, name in imports(path):
            if name.startswith("jaxseg.") and name.split(".")[1] not in ("preprocess", "text", "typing", "coco"):
                wrong.append(f"{path.relative_to(root)}:{line}: input_pipeline imports {name}")
    return wrong


def test_imports_follow_the_layers():
    assert not violations(ROOT), "\n" + "\n".join(violations(ROOT))


def test_violations_are_found(tmp_path):
    for folder, text in (
        ("jaxseg/ops", "from jaxseg.nn import attention\n"),
        ("jaxseg/encoders/vit", "from jaxseg.encoders.clip import vit\n"),
        ("jaxseg/systems/one", "import jaxseg.systems.two.model\n"),
        ("jaxseg/losses", "if True:\n    import torch\n"),
        ("input_pipeline", "from jaxseg.train import run\n"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.py").write_text(text)
    found = violations(tmp_path)
    assert len(found) == 5, found
    assert "jaxseg/losses/x.py:2: imports torch at import time" in found


def test_jaxseg_imports_without_what_it_does_not_need():
    """Every module, on a machine without TensorFlow, torch, transformers and tensorboard."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "jaxseg").rglob("*.py"))
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {FORBIDDEN!r}: sys.modules[name] = None\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "assert 'input_pipeline' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
