"""The arrows between the rooms, as pyproject.toml draws them."""

from importlinter.cli import lint_imports


def test_rooms_import_only_what_lies_below_them(capsys):
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out
