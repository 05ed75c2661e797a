"""Workdirs: claimed by one run at a time, and refused in one line before anything expensive."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from jaxseg import workdir


def test_spaces_and_unicode(tmp_path):
    folder = tmp_path / "my runs" / "größe 猫 🦊"
    with workdir.claim(str(folder)) as claimed:
        assert claimed == folder
        owner = json.loads((folder / workdir.LOCK).read_text())
        assert owner["pid"] == os.getpid()
        assert owner["host"] == socket.gethostname()
    with workdir.claim(folder):
        pass


def test_a_second_claim_is_refused_while_the_first_lasts(tmp_path):
    with workdir.claim(tmp_path):
        with pytest.raises(ValueError) as error, workdir.claim(tmp_path):
            pass
        expected = f"workdir {tmp_path}: is in use by process {os.getpid()} on {socket.gethostname()}, since "
        assert str(error.value).startswith(expected)
        assert "\n" not in str(error.value)
        assert json.loads((tmp_path / workdir.LOCK).read_text())["pid"] == os.getpid(), "the refused one changed the lock"
    with workdir.claim(tmp_path):
        pass


def test_a_failed_run_lets_go(tmp_path):
    with pytest.raises(RuntimeError), workdir.claim(tmp_path):
        raise RuntimeError
    with workdir.claim(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    program = (
        "import os, signal\n"
        "from jaxseg import workdir\n"
        f"with workdir.claim({str(tmp_path)!r}):\n"
        "    print('claimed', flush=True)\n"
        "    signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "claimed\n"
        with pytest.raises(ValueError, match=f"in use by process {process.pid} on"), workdir.claim(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    assert json.loads((tmp_path / workdir.LOCK).read_text())["pid"] == process.pid
    with workdir.claim(tmp_path):
        pass


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize(
    ("pid", "host", "refused"),
    [
        (os.getppid(), socket.gethostname(), True),
        (2**22 + 7, socket.gethostname(), False),  # above the largest process number
        (1, "another-host", True),
    ],
)
def test_without_file_locks_the_named_process_decides(tmp_path, without_locks, pid, host, refused):
    (tmp_path / workdir.LOCK).write_text(json.dumps({"pid": pid, "host": host, "since": "2026-01-01 00:00:00"}))
    if refused:
        with pytest.raises(ValueError, match=f"in use by process {pid} on {host}, since 2026"), workdir.claim(tmp_path):
            pass
    else:
        with workdir.claim(tmp_path):
            assert json.loads((tmp_path / workdir.LOCK).read_text())["pid"] == os.getpid()


def test_torn_lock_files_are_no_obstacle(tmp_path):
    for text in ('{"pid": 12', "[]", '{"pid": 1}', "\0\0"):
        (tmp_path / workdir.LOCK).write_text(text)
        with workdir.claim(tmp_path):
            pass


def test_read_only(tmp_path):
    folder = tmp_path / "fixed"
    folder.mkdir(mode=0o555)
    for parent in [tmp_path, *tmp_path.parents]:  # so that another user can come here at all
        if parent.stat().st_uid == os.getuid() and str(parent) not in ("/", "/tmp"):
            parent.chmod(0o755)
    nobody = 65534
    program = (
        "import os\n"
        "from jaxseg import workdir\n"
        f"if os.getuid() == 0: os.setuid({nobody})\n"
        f"for path in ({str(folder)!r}, {str(folder / 'new')!r}):\n"
        "    try:\n"
        "        workdir.claim(path).__enter__()\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"workdir {folder}: cannot be written: permission denied",
        f"workdir {folder / 'new'}: cannot be written: permission denied",
    ], done.stderr


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "workdir: found '', expected a folder"),
        ("gs://bucket/run", "workdir: found 'gs://bucket/run', expected a folder of this machine or one that is mounted"),
        ("file", "cannot be written: is a file"),
        ("file/below", "cannot be written: is a file"),
        ("x" * 300, "cannot be written: file name too long"),
    ],
)
def test_impossible_folders(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=message), workdir.claim(path):
        pass


def test_results_are_read_by_prefix(tmp_path):
    assert workdir.read_results(tmp_path) == {}
    (tmp_path / "results.json").write_text('{"val/miou": 0.5, "untrained/val/miou": 0.1}')
    assert workdir.read_results(tmp_path, prefix="untrained/") == {"untrained/val/miou": 0.1}
    (tmp_path / "results.json").write_text('{"val/miou": 0.')
    assert workdir.read_results(tmp_path) == {}
