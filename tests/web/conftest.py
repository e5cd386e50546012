"""Runs of fresh weights that pages are made of."""

import pytest


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A folder with blanks in its name and the runs attngan and show_attend_tell; tests write beside them alone."""
    from tests.random_runs import build

    folder = tmp_path_factory.mktemp("a folder of runs")
    for name in ("attngan", "show_attend_tell"):
        build(name).save(folder / name)
    return folder
