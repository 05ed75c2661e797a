"""How fast a config's training examples are read and prepared.

    python -m benchmarks.loader --config=configs/clipseg_rd64.py [--seconds=10] [--json=benchmarks/results/loader.json]

`first_epoch` reads and decodes every example; `later_epochs` finds in memory what comes before the first random op, as far as
config.data.train.cache_gb goes. Rates per core divide by CPU seconds of this process's threads, so that other programs do
not count.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

from benchmarks import paired
from input_pipeline import loader
from input_pipeline.module import DataModule
from jaxseg.config import load_config

RESULTS = Path(__file__).parent / "results" / "loader.json"


def measure(batches, seconds):
    """Images per second over about so many seconds of (kind, batch)."""
    for _ in range(2):
        next(batches)
    times, images, cpu, start = [], 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - start < seconds:
        began = time.perf_counter()
        _, batch = next(batches)
        times.append(time.perf_counter() - began)
        images += len(batch["image"])
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "images": images,
        "img_per_s": round(images / wall, 1),
        "img_per_s_per_core": round(images / cpu, 1),
        "cpu_ms_per_img": round(1e3 * cpu / images, 2),
        "batch_ms_median": round(1e3 * statistics.median(times), 1),
    }


def run(config, seconds):
    """Both rates of a config, with what they were measured on."""
    cache_gb, config.data.train.cache_gb = config.data.train.cache_gb, 0.0
    first = measure(DataModule.from_config(config, 0, 1).train(0), seconds)
    config.data.train.cache_gb = cache_gb
    module = DataModule.from_config(config, 0, 1)
    batches = module.train(0)
    num_examples = sum(part.size for part in module.plan.parts)
    for _ in range(num_examples // config.train.batch_size + 1):
        next(batches)
    return {
        "source": [source["name"] for source in config.data.train.sources],
        "examples": num_examples,
        "preprocess": config.data.train.preprocess,
        "batch_size": config.train.batch_size,
        "workers": loader.num_workers(config.data.train.workers),
        "cache_gb": cache_gb,
        "first_epoch": first,
        "later_epochs": measure(batches, seconds),
        "cpus": os.cpu_count(),
        "processor": paired.processor(),
        "python": platform.python_version(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="configs/X.py[:args]")
    parser.add_argument("--seconds", type=float, default=10.0, help="per rate")
    parser.add_argument("--json", default=str(RESULTS), help="where results are kept, by config")
    args = parser.parse_args()
    with load_config(args.config).unlocked() as config:
        result = run(config, args.seconds)
    path = Path(args.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**results, args.config: result}, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
