"""Prediction over files: every kind of file, names of outputs, prompts, bounded memory."""

import gc
import json
import logging
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from jaxseg import predict
from jaxseg.checkpoint import save_weights
from jaxseg.result import Result
from tests.api_test import make, photo, small_config, task_of
from tests.tiny import params_of

NAMES = "a cat; a remote control"


@pytest.fixture(scope="module")
def seg():
    return make()


def save_photo(file, size=(20, 30), seed=0, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(*size, seed)).save(file, **options)
    return file


def segment(seg, paths, folder, names=("a cat", "a remote control")):
    return predict.segment_files(seg, predict.find_images(paths), list(names), folder)


def test_run_writes_masks_at_the_original_size(tmp_path, seg):
    config, workdir = small_config(), tmp_path / "a workdir"
    save_weights(tmp_path / "weights", *params_of(task_of()), {"config": config.to_dict()})
    first = save_photo(tmp_path / "my photos" / "été 1.png", (25, 40))
    save_photo(tmp_path / "my photos" / "2.png", (50, 10), 1)
    pattern = str(tmp_path / "my photos" / "*.png")
    summary = predict.run(config, workdir, [pattern], weights=str(tmp_path / "weights"), text=NAMES)
    folder = workdir / "predictions"
    assert summary == {"images": 2, "skipped": [], "folder": str(folder)}
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{stem}{end}" for stem in ("été 1", "2") for end in (".json", ".png", "_masks")
    )
    content = json.loads((folder / "été 1.json").read_text())
    assert content["path"] == str(first) and content["size"] == [25, 40]
    assert content["prompts"] == ["a cat", "a remote control"]
    expected = seg(first, content["prompts"])
    for i, row in enumerate(content["masks"]):
        written = np.asarray(Image.open(folder / row["file"]))
        np.testing.assert_array_equal(written > 0, expected.mask(i))
        np.testing.assert_array_equal(coco.decode(row["rle"]).astype(bool), expected.mask(i))
        assert row["score"] == pytest.approx(float(expected.scores[i]), abs=1e-6)
        assert row["box_xyxy"] == expected.boxes[i].tolist()


def odd_images(folder):
    """{file: its size, or None where it cannot be read}."""
    folder.mkdir()
    base = photo(20, 30)
    image = Image.fromarray(base)
    made = {}

    def add(name, size, picture=None, content=None, **options):
        if content is not None:
            (folder / name).write_bytes(content)
        else:
            picture.save(folder / name, **options)
        made[name] = size

    add("good.jpg", (20, 30), image)
    jpeg = (folder / "good.jpg").read_bytes()
    add("truncated.jpg", None, content=jpeg[: len(jpeg) // 2])
    add("corrupt.jpg", None, content=jpeg[:2] + bytes(100) + jpeg[102:])
    add("text.png", None, content=b"not a picture")
    add("empty.jpg", None, content=b"")
    add("1x1.png", (1, 1), Image.fromarray(base[:1, :1]))
    add("cmyk.jpg", (20, 30), image.convert("CMYK"))
    add("16bit.png", (20, 30), Image.fromarray(base[..., 0].astype(np.uint16) << 8))
    add("gray.png", (20, 30), image.convert("L"))
    add("palette.png", (20, 30), image.convert("P"))
    add("transparent.png", (20, 30), image.convert("RGBA"))
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    add("rotated.jpg", (30, 20), image, exif=exif)
    frames = [Image.fromarray(photo(20, 30, i)) for i in range(3)]
    add("animated.gif", (20, 30), frames[0], save_all=True, append_images=frames[1:])
    add("too large.png", None, Image.new("RGB", (60, 60)))
    return made


def test_images_of_every_kind_are_segmented_or_skipped(tmp_path, caplog):
    seg = make(preprocess="decode(max_pixels=3000)|resize(32)|normalize(imagenet)|keep(image)", batch_size=2)
    made = odd_images(tmp_path / "in put")
    with caplog.at_level(logging.INFO):
        summary = segment(seg, [str(tmp_path / "in put")], tmp_path / "out")
    bad = {name for name, size in made.items() if size is None}
    assert {os.path.basename(path) for path in summary["skipped"]} == bad
    assert summary["images"] == len(made) - len(bad)
    lines = [record.getMessage() for record in caplog.records if "skipped " in record.getMessage()[:8]]
    assert len(lines) == len(bad)
    for name in bad:
        assert sum(str(tmp_path / "in put" / name) in line for line in lines) == 1
    assert not any("\n" in line for line in lines)
    assert f"{summary['images']}/{len(made)} images, {len(bad)} skipped" in caplog.records[-1].getMessage()
    for name, size in made.items():
        file = tmp_path / "out" / f"{name.rsplit('.', 1)[0]}.json"
        assert file.is_file() == (size is not None), name
        if size is not None:
            content = json.loads(file.read_text())
            assert tuple(content["size"]) == size, name
            assert Image.open(file.parent / content["masks"][0]["file"]).size == size[::-1]


def test_only_bad_images_is_an_error(tmp_path, seg):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="none of 2 images could be read.*a.jpg: the file is empty"):
        segment(seg, [str(tmp_path / "*.jpg")], tmp_path / "out")


def test_outputs_of_equal_stems_do_not_overwrite_each_other(tmp_path, seg):
    files = [save_photo(tmp_path / name, seed=i) for i, name in enumerate(["a/1.png", "b/1.png", "b/1.bmp", "1.png"])]
    segment(seg, map(str, files), tmp_path / "out")
    written = [json.loads(file.read_text())["path"] for file in (tmp_path / "out").glob("*.json")]
    assert sorted(written) == sorted(map(str, files))


def test_equal_slugs_of_names_do_not_overwrite_each_other(tmp_path, seg):
    names = ["a cat", "A Cat!", "a  cat", "\U0001f600", "\U0001f603", "../../x", "x\0y"]
    segment(seg, [str(save_photo(tmp_path / "p.png"))], tmp_path / "out", names)
    content = json.loads((tmp_path / "out" / "p.json").read_text())
    assert [row["label"] for row in content["masks"]] == names
    assert len(list((tmp_path / "out" / "p_masks").iterdir())) == len(names)
    assert not (tmp_path / "x.png").exists()


def test_last_batch_is_filled_up_and_gives_nothing_more(tmp_path):
    for i in range(5):
        save_photo(tmp_path / "in" / f"{i}.png", (10 + i, 20), i)
    summary = segment(make(batch_size=2), [str(tmp_path / "in")], tmp_path / "out")
    assert summary["images"] == 5 and len(list((tmp_path / "out").glob("*.json"))) == 5


def test_images_are_found(tmp_path, monkeypatch):
    names = ["a.jpg", "b 2.PNG", "c[1].jpg", "sub/é.jpg", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def found(*patterns):
        return [str(path) for path in predict.find_images(patterns)]

    assert found("*.jpg") == ["a.jpg", "c[1].jpg"]
    assert found("c[1].jpg", "a.jpg", "*.jpg") == ["c[1].jpg", "a.jpg"]  # as named, each once
    assert found(str(tmp_path)) == [str(tmp_path / name) for name in names[:3]]
    assert found("**/*.jpg") == ["a.jpg", "c[1].jpg", "sub/é.jpg"]
    assert found("*") == ["a.jpg", "b 2.PNG", "c[1].jpg", "notes.txt"]
    with pytest.raises(ValueError, match=r"--images: found no image at '\*\.webp'"):
        found("*.jpg", "*.webp")
    with pytest.raises(ValueError, match="found no image at 'missing.jpg'"):
        found("missing.jpg")
    with pytest.raises(ValueError, match="--images: found nothing"):
        found()


def test_names_are_read(tmp_path, caplog):
    assert predict.read_names(" a cat;a dog ; ;") == ["a cat", "a dog"]
    file = tmp_path / "names here.txt"
    file.write_bytes("\ufeffein Bär\r\n\r\n日本\r\na cat\r\n".encode())
    assert predict.read_names("a cat", str(file)) == ["a cat", "ein Bär", "日本"]
    assert "1 names occur more than once and are used once: a cat" in caplog.text
    for text in ("", " ; ;"):
        with pytest.raises(ValueError, match="--text: found no names"):
            predict.read_names(text)
    with pytest.raises(ValueError, match="cannot read .*nowhere.txt"):
        predict.read_names("", str(tmp_path / "nowhere.txt"))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        predict.read_names("", str(file))


def test_names_that_are_too_long_are_refused_before_any_image_is_read(tmp_path, seg, monkeypatch):
    file = save_photo(tmp_path / "p.png")
    monkeypatch.setattr(seg, "read", lambda image: pytest.fail("an image was read"))
    with pytest.raises(ValueError, match="a context of .* holds"):
        segment(seg, [str(file)], tmp_path / "out", ["a cat", "word " * 25_000])


def test_mistakes_are_found_before_the_weights_are_read(tmp_path):
    config, nowhere = small_config(), str(tmp_path / "no weights")
    file = save_photo(tmp_path / "p.png")
    with pytest.raises(ValueError, match="--text"):
        predict.run(config, tmp_path, [str(file)], nowhere)
    with pytest.raises(ValueError, match="--images"):
        predict.run(config, tmp_path, [str(tmp_path / "*.jpg")], nowhere, text=NAMES)
    with pytest.raises(ValueError, match="--workdir: cannot write"):
        predict.run(config, file, [str(file)], nowhere, text=NAMES)
    with pytest.raises(ValueError, match="no such folder"):
        predict.run(config, tmp_path, [str(file)], nowhere, text=NAMES)


def test_a_full_disk_ends_the_run_in_one_line(tmp_path, seg, monkeypatch):
    def full(self, folder, stem):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Result, "save", full)
    files = [str(save_photo(tmp_path / f"{i}.png")) for i in range(3)]
    with pytest.raises(ValueError, match="cannot write 0: No space left on device"):
        segment(seg, files, tmp_path / "out")


def test_progress_says_how_far_how_fast_and_how_long(tmp_path, seg, monkeypatch, caplog):
    monkeypatch.setattr(predict, "_PROGRESS_SECONDS", 0)
    files = [str(save_photo(tmp_path / f"{i}.png")) for i in range(3)]
    with caplog.at_level(logging.INFO):
        segment(seg, files, tmp_path / "out")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("1/3 images, ") and "images/s" in lines[0] and lines[0].endswith(" left")
    assert lines[-1].startswith("3/3 images in 0:0") and lines[-1].endswith(str(tmp_path / "out"))


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_memory_stays_flat_over_many_images(tmp_path, seg, monkeypatch):
    """Ninety images of 0.75 MB in memory: kept, the last sixty would take 45 MB, their pictures as much again."""
    file = tmp_path / "p.png"
    Image.new("RGB", (512, 512), (90, 120, 60)).save(file)  # flat pictures are written quickly
    save, resident, alive = Result.save, [], []

    def watched(self, folder, stem):
        save(self, folder, stem)
        resident.append(resident_megabytes())
        if len(resident) % 10 == 0:
            alive.append(sum(isinstance(o, Result) for o in gc.get_objects()))

    monkeypatch.setattr(Result, "save", watched)
    monkeypatch.setattr(seg, "read", lambda path, read=seg.read: read(file))
    predict.segment_files(seg, [tmp_path / f"{i}.png" for i in range(90)], ["a cat", "a dog"], tmp_path / "out")
    before, after = np.median(resident[20:35]), np.median(resident[-15:])
    assert after - before < 20, resident
    assert max(alive) < 30, alive
