"""The history's file: SQLite, one row an entry, an artifact, a number.

::

    entries 1 ── n results 1 ── n numbers          PRAGMA user_version says which schema, application_id that it is ours

Writers take turns (``BEGIN IMMEDIATE``), an entry is written whole or not at all, and the write-ahead log
(https://www.sqlite.org/wal.html) keeps what was committed when a writer is killed. A file that is damaged, is another program's,
or was made by a later edgekit is refused before anything is written to it. Reading changes no entry and no schema.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgekit.core.errors import IntegrityError, OutputError
from edgekit.core.history_entry import HistoryEntry, utc

__all__ = ["APPLICATION_ID", "MIGRATIONS", "HistoryStore"]

APPLICATION_ID = 0x65646B68
"""``edkh``, in the file's header (https://www.sqlite.org/fileformat.html#application_id)."""

MIGRATIONS = (
    """
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY AUTOINCREMENT, created TEXT NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL,
        task TEXT NOT NULL, recipe TEXT NOT NULL, metric TEXT NOT NULL, program_sha256 TEXT NOT NULL, task_sha256 TEXT NOT NULL,
        device TEXT NOT NULL, device_title TEXT NOT NULL, facts TEXT NOT NULL, versions TEXT NOT NULL, verdict TEXT NOT NULL
    );
    CREATE TABLE results (
        id INTEGER PRIMARY KEY, entry INTEGER NOT NULL REFERENCES entries(number), label TEXT NOT NULL, target TEXT NOT NULL,
        precision TEXT NOT NULL, artifact_sha256 TEXT NOT NULL, runtime TEXT NOT NULL, runtime_version TEXT NOT NULL,
        evidence TEXT NOT NULL, failure TEXT NOT NULL
    );
    CREATE TABLE numbers (
        result INTEGER NOT NULL REFERENCES results(id), place INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,
        unit TEXT NOT NULL, evidence TEXT NOT NULL, low REAL, high REAL, sample_count INTEGER NOT NULL,
        PRIMARY KEY (result, place)
    ) WITHOUT ROWID;
    CREATE INDEX results_by_entry ON results(entry);
    """,
    """
    ALTER TABLE results ADD COLUMN scenario TEXT NOT NULL DEFAULT '';
    ALTER TABLE entries ADD COLUMN open_gates TEXT NOT NULL DEFAULT '[]';
    """,
)
"""What makes each version of the schema out of the one before; a new file takes all of them."""

_BUSY_S = 20.0
_FOREIGN = "Move it away, or name another file with EDGEKIT_HISTORY."
_ENTRY: tuple[str, ...] = (
    "created", "kind", "run", "task", "recipe", "metric", "program_sha256", "task_sha256", "device", "device_title", "facts",
    "versions", "verdict", "open_gates",
)  # fmt: skip
_RESULT: tuple[str, ...] = (
    "label", "target", "precision", "artifact_sha256", "runtime", "runtime_version", "evidence", "failure", "scenario",
)  # fmt: skip
_NUMBER: tuple[str, ...] = ("name", "value", "unit", "evidence", "sample_count")
_AS_JSON = {"facts", "versions", "open_gates"}


class HistoryStore:
    """Entries in one file.

    Args:
        path: The file; made with the first entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entries: Sequence[HistoryEntry]) -> tuple[int, ...]:
        """Write entries, all or none, and return their numbers.

        Raises:
            IntegrityError: The file is damaged, or is no history; it was not touched.
            OutputError: It cannot be written, or another process holds it for too long.
        """
        if self._is_there():
            with self._reading():
                pass
        with self._explaining(), contextlib.closing(self._writer()) as connection:
            _write_ahead(connection)
            connection.execute("BEGIN IMMEDIATE")
            try:
                self._migrate(connection)
                numbers = tuple(_insert(connection, entry) for entry in entries)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a failed write to the disk has ended it already
                    connection.execute("ROLLBACK")
                raise
        return numbers

    def read(
        self, *, run: str = "", devices: Collection[str] = (), since: dt.datetime | None = None, last: int | None = None
    ) -> tuple[HistoryEntry, ...]:
        """Entries in the order they were appended; none where there is no file.

        Args:
            run: Only those of this run.
            devices: Only those of these devices; empty: of all.
            since: Only those made from then on.
            last: At most so many, the latest.

        Raises:
            IntegrityError: The file is damaged, or is no history.
            OutputError: It cannot be read.
        """
        if not self._is_there():
            return ()
        with self._reading() as connection:
            chosen = _chosen(connection, run=run, devices=devices, since=since, last=last)
            return tuple(self._entries(connection, chosen))

    def _is_there(self) -> bool:
        """Whether there is anything; a writer that was killed at once leaves an empty file."""
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as reason:
            raise OutputError(f"The history {self.path} cannot be read: {os.strerror(reason.errno or 0)}.") from reason

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A checked connection that writes nothing; an older schema is brought up to date in memory."""
        with self._explaining(), contextlib.closing(self._reader()) as connection:
            version = self._check(connection)
            if version == len(MIGRATIONS):
                yield connection
                return
            with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                connection.backup(copy)
                self._migrate(copy)
                yield copy

    def _reader(self) -> sqlite3.Connection:
        """Reads only; where even the reader's bookkeeping files cannot be made, the file is taken to stand still.

        Our own file is opened as if to write, for only such a connection takes the write-ahead log away when it is closed.
        """
        with self.path.open("rb") as stream:
            header = stream.read(100)
        is_ours = header[68:72] == APPLICATION_ID.to_bytes(4, "big")
        try:
            connection = self._open("mode=rw" if is_ours else "mode=ro")
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as reason:
            if "unable to open" not in str(reason) and "readonly" not in str(reason):
                raise
            return self._open("immutable=1")
        return connection

    def _writer(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as reason:
            raise OutputError(f"The history {self.path} cannot be made: {os.strerror(reason.errno or 0)}.") from reason
        return self._open("mode=rwc")

    def _open(self, how: str) -> sqlite3.Connection:
        place = quote(str(self.path.absolute()))
        return sqlite3.connect(f"file:{place}?{how}", uri=True, timeout=_BUSY_S, isolation_level=None)

    def _check(self, connection: sqlite3.Connection) -> int:
        """The schema's version, of a file that is ours and whole; 0 of one that another writer is just making, or never finished.

        Raises:
            IntegrityError: It is not.
        """
        [owner], [version] = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version"))
        [table_count] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (owner or version or table_count):
            return 0
        if owner != APPLICATION_ID:
            raise IntegrityError(f"{self.path} is a database of another program, not a history of edgekit. {_FOREIGN}")
        if not 1 <= version <= len(MIGRATIONS):
            raise IntegrityError(
                f"{self.path} is a history of schema {version}; this edgekit reads 1 to {len(MIGRATIONS)}. Use a later edgekit."
            )
        found = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise IntegrityError(f"{self.path} is damaged: {found[0]}. {_FOREIGN}")
        return int(version)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the schema up to date, inside the transaction that is open.

        Raises:
            IntegrityError: Another program made the file its own since it was looked at.
        """
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [table_count] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if table_count and connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise IntegrityError(f"{self.path} is a database of another program, not a history of edgekit. {_FOREIGN}")
        for script in MIGRATIONS[version:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(version, len(MIGRATIONS))}")

    def _entries(self, connection: sqlite3.Connection, chosen: str) -> Iterator[HistoryEntry]:
        """Entries whose numbers stand in ``chosen``, a JSON array."""
        of_entries = "IN (SELECT value FROM json_each(?))"
        numbers: dict[int, list[dict[str, Any]]] = {}
        asked = f"SELECT result, low, high, {_list(_NUMBER)} FROM numbers"
        asked += f" WHERE result IN (SELECT id FROM results WHERE entry {of_entries}) ORDER BY result, place"
        for result, low, high, *values in connection.execute(asked, (chosen,)):
            interval = None if low is None or high is None else (low, high)
            numbers.setdefault(result, []).append({**dict(zip(_NUMBER, values, strict=True)), "interval": interval})
        results: dict[int, list[dict[str, Any]]] = {}
        asked = f"SELECT id, entry, {_list(_RESULT)} FROM results WHERE entry {of_entries} ORDER BY id"
        for key, entry, *values in connection.execute(asked, (chosen,)):
            found = dict(zip(_RESULT, values, strict=True))
            results.setdefault(entry, []).append({**found, "numbers": numbers.get(key, [])})
        asked = f"SELECT number, {_list(_ENTRY)} FROM entries WHERE number {of_entries} ORDER BY number"
        for number, *values in connection.execute(asked, (chosen,)):
            fields = dict(zip(_ENTRY, values, strict=True))
            fields |= {name: json.loads(fields[name]) for name in _AS_JSON}
            source = f"{self.path}, entry {number}"
            yield HistoryEntry.parse({**fields, "number": number, "results": results.get(number, [])}, source=source)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Map what SQLite says about the file.

        Raises:
            IntegrityError: It is damaged, or is no database.
            OutputError: It cannot be read or written.
        """
        try:
            yield
        except OSError as reason:
            raise OutputError(f"The history {self.path} cannot be used: {os.strerror(reason.errno or 0)}.") from reason
        except sqlite3.OperationalError as reason:  # disk full, no permission, locked: about the place, not the content
            if "malformed" in str(reason) or "no such" in str(reason):
                raise IntegrityError(f"{self.path} is damaged: {reason}. {_FOREIGN}") from reason
            raise OutputError(f"The history {self.path} cannot be used: {reason}.") from reason
        except (sqlite3.Error, ValueError, OverflowError) as reason:
            raise IntegrityError(f"{self.path} is damaged, or is no history of edgekit: {reason}. {_FOREIGN}") from reason


def _chosen(
    connection: sqlite3.Connection, *, run: str, devices: Collection[str], since: dt.datetime | None, last: int | None
) -> str:
    """Numbers of the entries that are asked for, as a JSON array: one parameter, however many they are."""
    moment = since.astimezone(dt.UTC).isoformat(timespec="seconds") if since else ""
    rows = connection.execute(
        "SELECT number FROM entries WHERE (:run = '' OR run = :run) AND created >= :moment"
        " AND (:devices = '[]' OR device IN (SELECT value FROM json_each(:devices))) ORDER BY number DESC LIMIT :last",
        {"run": run, "moment": moment, "devices": json.dumps(list(devices)), "last": -1 if last is None else last},
    )
    return json.dumps([number for (number,) in rows])


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; the switch does not wait for other writers by itself, so it is tried again.

    File systems without shared memory keep the rollback journal, which is as safe and makes readers wait.
    """
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    end = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as reason:
            if "locked" not in str(reason) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _insert(connection: sqlite3.Connection, entry: HistoryEntry) -> int:
    fields: dict[str, Any] = entry.model_dump(mode="json")
    if (moment := utc(entry.created)) is not None:  # one form, so that moments compare as texts do
        fields["created"] = moment.isoformat(timespec="seconds")
    fields |= {name: json.dumps(fields[name], ensure_ascii=False) for name in _AS_JSON}
    number = _row(connection, "entries", {name: fields[name] for name in _ENTRY})
    for result in fields["results"]:
        key = _row(connection, "results", {"entry": number, **{name: result[name] for name in _RESULT}})
        for place, one in enumerate(result["numbers"]):
            low, high = one["interval"] or (None, None)
            values = {name: one[name] for name in _NUMBER}
            _row(connection, "numbers", {"result": key, "place": place, "low": low, "high": high, **values})
    return number


def _row(connection: sqlite3.Connection, table: str, values: dict[str, Any]) -> int:
    marks = ", ".join("?" for _ in values)
    words = f"INSERT INTO {table} ({_list(tuple(values))}) VALUES ({marks})"
    return int(connection.execute(words, tuple(values.values())).lastrowid or 0)
