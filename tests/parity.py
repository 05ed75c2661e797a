"""Compares the project with the recorded numbers of the published systems.

    python -m tests.parity [FILE or FOLDER ...] [--json OUT] [--save DIR] [--list]

A line per file: `ok`, `FAILED <output>: why`, `no runner`, or `pending` for cases named in parity_runners/pending.txt, whose
system is not built yet; a file given by name is never pending. Exit code 1 if any failed or had no runner.
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

GOLDENS = Path(__file__).parent / "goldens"
PENDING = Path(__file__).parent / "parity_runners" / "pending.txt"
os.environ.setdefault("JAX_PLATFORMS", "cpu")


def import_runners():
    """Imports every module of runners; returns the registry."""
    import jax

    from tests import parity_runners
    from tests.parity_runners.registry import RUNNERS

    jax.config.update("jax_default_matmul_precision", "highest")
    for module in pkgutil.iter_modules(parity_runners.__path__):
        importlib.import_module(f"tests.parity_runners.{module.name}")
    return RUNNERS


def golden_files(arguments):
    """[(file, whether it was named itself)] of files and folders, sorted."""
    found = []
    for argument in arguments or [GOLDENS]:
        path = Path(argument)
        if path.is_dir():
            found += [(file, False) for file in sorted(path.rglob("*__*.npz"))]
        elif path.is_file():
            found.append((path, True))
        else:
            raise SystemExit(f"tests.parity: no such file or folder: {path}")
    return found


def case_of(path):
    return f"{path.resolve().parent.name}/{path.stem.split('__')[0]}"


def read_golden(path):
    """(config, {weight group: state dict}, inputs, outputs) of a recorded file."""
    config, groups, inputs, outputs = {}, {"weights": {}}, {}, {}
    with np.load(path) as data:
        for key in data.files:
            group, _, name = key.partition("/")
            if key == "config":
                config = json.loads(str(data[key]))
            elif group == "input":
                inputs[name] = data[key]
            elif group == "output":
                outputs[name] = data[key]
            elif group.startswith("weights"):
                groups.setdefault(group, {})[name] = data[key]
    return config, groups, inputs, outputs


def judge(path, runner, save):
    """{output: {"status", "max_abs_error", "max_abs"}} of one file."""
    from tests import compare

    rules = json.loads(compare.RULES.read_text())
    config, groups, inputs, outputs = read_golden(path)
    if runner.questions:
        inputs = {**inputs, **runner.questions(outputs)}
    produced = runner.function(config, groups if runner.groups else groups["weights"], inputs)
    produced = {name: np.asarray(value) for name, value in produced.items()}
    if save:
        folder = Path(save) / path.resolve().parent.name
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / path.name, **produced)
    report = {}
    for name, expected in outputs.items():
        if name in runner.skip:
            report[name] = {"status": f"skipped: {runner.skip[name]}"}
            continue
        why = compare.judge_output(rules, case_of(path), name, outputs, produced)
        report[name] = {"status": why or "ok", **_errors(expected, produced.get(name))}
    return report


def _errors(expected, found):
    if found is None or found.shape != expected.shape or expected.dtype.kind not in "fiub" or not expected.size:
        return {"max_abs_error": None, "max_abs": None}
    expected, found = expected.astype(float), np.asarray(found, float)
    return {
        "max_abs_error": float(np.nanmax(np.abs(expected - found), initial=0)),
        "max_abs": float(np.nanmax(np.abs(expected), initial=0)),
    }


def status_of(path, named, runners, pending, save):
    """(status, report) of one file."""
    case = case_of(path)
    if case not in runners:
        waits = not named and any(fnmatchcase(case, pattern) for pattern in pending)
        return ("pending" if waits else "no runner"), {}
    try:
        report = judge(path, runners[case], save)
    except Exception as error:  # one broken case must not hide the others
        return f"FAILED {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", {}
    wrong = [f"{name}: {r['status']}" for name, r in report.items() if r["status"] != "ok" and "skipped" not in r["status"]]
    return (f"FAILED {'; '.join(wrong[:3])} ({len(wrong)} of {len(report)} outputs)" if wrong else "ok"), report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--json", default="", help="write every output's error to this file")
    parser.add_argument("--save", default="", help="write what was produced below this folder")
    parser.add_argument("--list", action="store_true", help="list the cases without a runner")
    args = parser.parse_args()
    runners, pending = import_runners(), PENDING.read_text().split()
    files = golden_files(args.paths)
    if args.list:
        print("\n".join(sorted({case_of(path) for path, _ in files} - set(runners))))
        return 0
    results = []
    for path, named in files:
        status, report = status_of(path, named, runners, pending, args.save)
        print(f"{path.resolve().parent.name}/{path.name}: {status}", flush=True)
        results.append({"file": str(path), "case": case_of(path), "status": status, "outputs": report})
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))
    counts = {name: sum(r["status"] == name for r in results) for name in ("ok", "pending")}
    failed = len(results) - counts["ok"] - counts["pending"]
    waiting = f", {counts['pending']} pending" if counts["pending"] else ""
    print(f"{counts['ok']} passed, {failed} failed{waiting}")
    return 1 if failed or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
