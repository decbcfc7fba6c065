import json
import subprocess
import sys
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luring import rows
from luring.errors import InputError

WHOLE = b'{"kind":"accuracy","n":1}\n'


def test_what_is_appended_is_read_back(tmp_path):
    file = tmp_path / "new" / "rows.jsonl"
    assert rows.read(file) == []
    first = {"kind": "transfer", "eps": 0.1, "l0": [1, 2.5], "settings": {"steps": 3}, "name": "ε"}
    rows.append(file, first)
    rows.append(file, {"kind": "accuracy"})
    assert rows.read(file) == [first, {"kind": "accuracy"}]
    assert file.read_bytes().count(b"\n") == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_json_comes_back(tmp_path_factory, row):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.append(file, row | {"kind": "x"})
    assert rows.read(file) == [row | {"kind": "x"}]


def test_what_is_no_number_becomes_null_at_every_depth(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows.append(file, {"kind": "x", "dr": nan, "tried": [{"ac_m": inf, "l0": (nan, 1.0)}]})
    assert rows.read(file) == [{"kind": "x", "dr": None, "tried": [{"ac_m": None, "l0": [None, 1.0]}]}]
    assert b"NaN" not in file.read_bytes()


@pytest.mark.parametrize(
    "rest", [b'{"kind":"acc', b"{", b'{"kind":"accuracy","n":2}', b'{"n":2}', b"\xce", b" " * 200_000]
)
def test_an_interrupted_last_line_is_passed_over_and_then_removed(tmp_path, rest):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(WHOLE + rest)
    assert rows.read(file) == [{"kind": "accuracy", "n": 1}]
    assert file.read_bytes() == WHOLE + rest, "reading changes nothing"
    rows.append(file, {"kind": "x"})
    assert file.read_bytes() == WHOLE + b'{"kind":"x"}\n'


def test_a_file_of_nothing_but_an_interrupted_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"kind":')
    assert rows.read(file) == []
    rows.append(file, {"kind": "x"})
    assert rows.read(file) == [{"kind": "x"}]


@pytest.mark.parametrize("bad", [b'{"kind":\n', b"\n", b"[1]\n", b'{"n":1}\n', b"\xff\n", b"3\n"])
@pytest.mark.parametrize("after", [WHOLE, b"", b'{"kin'])
def test_a_damaged_line_is_named_and_the_file_left_alone(tmp_path, bad, after):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(WHOLE + bad + after)
    with pytest.raises(InputError, match="line 2 ") as caught:
        rows.read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == WHOLE + bad + after


def test_a_row_that_is_not_json_leaves_the_file_alone(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(WHOLE)
    with pytest.raises(TypeError):
        rows.append(file, {"kind": "x", "value": object()})
    assert file.read_bytes() == WHOLE


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"mounting a small disk is not permitted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_the_file_as_it_was(small_disk):
    file = small_disk / "rows.jsonl"
    rows.append(file, {"kind": "x", "long": "a" * 3000})
    before = file.read_bytes()
    for length in (100_000, 1_000_000):
        with pytest.raises(OSError, match="No space left"):
            rows.append(file, {"kind": "x", "long": "b" * length})
        assert file.read_bytes() == before
    rows.append(file, {"kind": "y"})
    assert [row["kind"] for row in rows.read(file)] == ["x", "y"]


def test_writing_that_fails_leaves_the_file_as_it_was(tmp_path):
    # The same where no disk can be mounted: a limit on the file's size, in a process of its own.
    file = tmp_path / "rows.jsonl"
    file.write_bytes(WHOLE)
    code = (
        "import resource, signal, sys; from pathlib import Path; from luring import rows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "try: rows.append(Path(sys.argv[1]), {'kind': 'x', 'long': 'b' * 20000})\n"
        "except OSError: sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert file.read_bytes() == WHOLE


def test_the_digest_is_stable():
    assert rows.digest({"b": [1, 2.5], "a": None}) == rows.digest({"a": None, "b": (1, 2.5)}) == "6b1d84977084"
    assert rows.digest({"a": 1}) != rows.digest({"a": 2})


def test_provenance_says_where_and_with_what():
    found = rows.provenance()
    assert set(found) == {"commit", "versions", "hardware", "date"}
    assert set(found["versions"]) == {"luring", "python", "torch", "numpy", "datasets", "scikit-learn"}
    assert all(found["versions"].values())
    assert set(found["hardware"]) == {"cpu", "cores", "gpu", "system"}
    assert found["commit"] is None or len(found["commit"].removesuffix("-dirty")) == 40
    assert json.loads(json.dumps(found)) == found


def test_the_cell_of_a_row():
    cell = {"kind": "transfer", "dataset": "digits", "attack": "mim", "eps": 0.1, "seed": 0}
    assert rows.key(cell) == rows.key(cell | {"ac_m": 0.5, "settings": {"steps": 3}})
    assert rows.key(cell) != rows.key(cell | {"seed": 1})
    more = cell | {"kind": "convergence"}
    assert rows.key(more | {"settings": {"steps": 3}}) != rows.key(more | {"settings": {"steps": 4}})


def test_select():
    found = [{"kind": "x", "eps": 0.1}, {"kind": "x", "eps": 0.2}, {"kind": "y"}]
    assert rows.select(found, kind="x", eps=0.2) == [found[1]]
    assert rows.select(found) == found
