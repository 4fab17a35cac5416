"""Tables are made once, however many begin at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import inspect

from quota.sql import Base, create_engine
from quota.tables import create_tables


def test_many_may_make_the_tables_at_once(tmp_path: Path) -> None:
    url, begin, failed = f"sqlite:///{tmp_path / 'x.sqlite'}", threading.Barrier(8), []

    def one() -> None:
        engine = create_engine(url, busy_seconds=60)
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
