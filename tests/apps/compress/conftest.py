"""Text for the tests of `compress`."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n\n".join(f"( ph -> ps ) {number} ( A u. B ) = ( B u. A ) -. ch" for number in range(200)))
    return path
