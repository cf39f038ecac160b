from __future__ import annotations

from pathlib import Path

import pytest

from tests.suite.guests import build_tree


@pytest.fixture(scope="session")
def tree_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of guests, built once."""
    return build_tree(tmp_path_factory.mktemp("tree"))
