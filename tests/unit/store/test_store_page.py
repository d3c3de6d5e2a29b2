"""docs/store.md says what the tables are."""

from pathlib import Path

import pytest

from d3po.store.tables import Base
from tools.docs import STORE, configuration_page, main, store_page

COLUMNS = [column for table in Base.metadata.tables.values() for column in table.columns]


def test_the_page_on_the_store_is_current() -> None:
    assert STORE.read_text() == store_page(), "run `python -m tools.docs` and commit docs/store.md"


def test_every_table_and_column_is_on_the_page_with_its_meaning() -> None:
    page = store_page()
    assert all(f"## `{table}`" in page for table in Base.metadata.tables)
    silent = [str(column) for column in COLUMNS if not column.comment and not (column.name == "id" and column.primary_key)]
    assert silent == [], "columns without a comment in tables.py"
    assert "|  |" not in page


def test_check_finds_a_stale_page_on_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("CONFIGURATION", configuration_page()), ("STORE", store_page() + "a change by hand\n")):
        monkeypatch.setattr(f"tools.docs.{name}", tmp_path / f"{name.lower()}.md")
        (tmp_path / f"{name.lower()}.md").write_text(text)
    assert main(["--check"]) == 1
    assert "docs/store.md" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
