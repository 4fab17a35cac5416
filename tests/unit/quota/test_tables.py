"""Tables are made once, however many begin at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect

from quota.sql import Base, create_engine
from quota.tables import create_tables
from support.postgresql import new_database


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_may_make_the_tables_at_once(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    else:
        url = new_database(request.getfixturevalue("postgresql"), "tables")
    begin, failed = threading.Barrier(8), []

    def one() -> None:
        engine = create_engine(url, busy_seconds=60)
        if kind == "postgresql":  # connected before: they begin together
            engine.connect().close()
        begin.wait()
        try:
            create_tables(engine, Base.metadata)
        except Exception as error:
            failed.append(error)
        engine.dispose()

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert set(inspect(create_engine(url)).get_table_names()) == set(Base.metadata.tables)
