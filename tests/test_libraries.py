"""A library that is missing or broken is told in one sentence."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import luring
from luring.errors import InputError
from luring.targets.libraries import library

LOADS = """
import sys
from luring import targets
from luring.errors import InputError

for name in sys.argv[1:]:
    try:
        targets.load(name)
    except InputError as error:
        print(error)
"""


@pytest.mark.skipif(not (find_spec("timm") and find_spec("transformers")), reason="luring[models] is not installed")
def test_a_torchvision_of_another_pytorch_is_named_with_its_file(tmp_path):
    """As PyPI's beside a PyTorch for CPUs, in a process of its own: here it may be imported already."""
    broken = tmp_path / "torchvision" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text('raise RuntimeError("operator torchvision::nms does not exist\\nmore of it")\n')
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(json.dumps({"model_type": "vit", "intermediate_size": 16} | sizes))
    path = f"{tmp_path}{os.pathsep}{Path(luring.__file__).parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", LOADS, "timm:test_resnet", str(tmp_path / "vit")],
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout.splitlines()
    assert len(said) == 2, done
    for name, sentence in zip(("timm", "transformers"), said, strict=True):
        assert sentence.startswith(
            f"{name} cannot be imported, for torchvision is broken here (RuntimeError in {broken}: "
        )
        assert "nms does not exist): install the torchvision that was built for PyTorch " in sentence


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, r"^some_library is missing: pip install 'luring\[models\]'\.$"),
        ("import no_such_part", r"^no_such_part is missing: pip install 'luring\[models\]'\.$"),
        (
            "1 / 0",
            r"some_library is broken here \(ZeroDivisionError in .*some_library\.py: .*install some_library anew",
        ),
        ("this is no Python", r"^some_library cannot be imported \(invalid syntax.*some_library\.py, line 1\)"),
    ],
)
def test_any_library_that_fails(tmp_path, monkeypatch, content, match):
    monkeypatch.syspath_prepend(tmp_path)
    if content is not None:
        (tmp_path / "some_library.py").write_text(content)
    with pytest.raises(InputError, match=match) as caught:
        library("some_library")
    assert "\n" not in str(caught.value)
