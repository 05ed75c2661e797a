"""Two processes of two devices give the losses of one process of four: `main.py` itself, on a folder of images."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SMALL = (
    "--config.train.steps=3", "--config.train.log_every=3", "--config.train.batch_size=8",
    "--config.train.untrained_baseline=False",
    "--config.init_from=()", "--config.mesh.fsdp=2", "--config.model.mlp_dim=16", "--config.model.reduce_dim=8",
    "--config.model.clip.text_layers=1", "--config.model.clip.vocab_size=49408", "--config.model.dropout=0.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of coloured halves with their label maps; three to evaluate."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 3)):
        (root / split).mkdir()
        (root / f"{split}annot").mkdir()
        for i in range(count):
            label = np.zeros((40, 40), np.uint8)
            label[:, rng.integers(10, 30) :] = 1
            image = rng.integers(0, 99, (40, 40, 3)).astype(np.uint8) + 120 * label[..., None]
            cv2.imwrite(str(root / split / f"{i}.png"), image)
            cv2.imwrite(str(root / f"{split}annot" / f"{i}.png"), label)
    (root / "classes.json").write_text(json.dumps({"classes": [{"id": 0, "name": "cat"}, {"id": 1, "name": "sofa"}]}))
    return root


def start(folder, workdir, num_devices, **variables):
    flags = os.environ.get("XLA_FLAGS", "").replace("device_count=8", f"device_count={num_devices}")
    command = [
        sys.executable,
        "main.py",
        f"--config=configs/clipseg_rd64.py:tiny,data={folder}",
        f"--workdir={workdir}",
        *SMALL,
    ]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | variables
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def finish(*processes):
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


def test_two_processes_equal_one(folder, tmp_path):
    finish(start(folder, tmp_path / "one", 4))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    finish(*(start(folder, tmp_path / "two", 2, **cluster, JAX_PROCESS_ID=str(i)) for i in range(2)))
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", "two")
    )
    assert one[0]["step"] == two[0]["step"] == 3
    for name in ("train/mask", "train/loss", "train/grad_norm"):
        np.testing.assert_allclose(one[0][name], two[0][name], rtol=1e-5, err_msg=name)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[0].keys() == results[1].keys()
    assert any(name.startswith("val/prompt_iou") for name in results[0])
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], atol=2e-3, err_msg=name)
