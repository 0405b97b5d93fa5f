"""One run at a time writes a page, and removes what a killed run has left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxrreport.errors import OutputError
from cxrreport.review import locked_page
from cxrreport.storage.atomic_files import PARTIAL, atomic_path


class Killed(BaseException):
    pass


def test_a_second_run_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "new" / "review.html"
    with locked_page(page):
        with pytest.raises(OutputError, match="another run"):
            with locked_page(page):
                pass
        with locked_page(page.with_name("other.html")):
            pass
    with locked_page(page):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), locked_page(tmp_path / "file" / "review.html"):
        pass


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    page = tmp_path / "review.html"
    names = ["review.html", "review-key.csv", "review-images/image-0-0.jpg", "other.html"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        for name in names:
            with pytest.raises(Killed), atomic_path(tmp_path / name) as temporary:
                temporary.write_text("reports")
                raise Killed
    (tmp_path / f"{PARTIAL}0a1b2c3d-review.html").write_text("of version 0.1")
    with locked_page(page):
        left = list(tmp_path.rglob(f"{PARTIAL}*"))
    assert len(left) == 1 and left[0].parent == tmp_path  # that of the other page
