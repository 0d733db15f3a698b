"""`check --live` against a real Redis and a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import redis
from servers import RedisServer

from dicomnode import check

# Warnings that a file without peers and routes has anyway.
_BARE = {"peers", "routes"}


def _paths(folder: Path, text: str) -> set[str]:
    file = folder / "node.toml"
    file.write_text(f'[listen]\nhost = "127.0.0.1"\nport = 0\n{text}', encoding="utf-8")
    return {problem.path for problem in check.run(file, {}, live=True)} - _BARE


def test_a_redis_that_answers_is_no_problem(tmp_path: Path, redis_server: RedisServer) -> None:
    assert _paths(tmp_path, f'[queue]\nbroker = "{redis_server.url}"\n') == set()


def test_a_redis_that_wants_a_password_gets_that_of_the_file(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    queue = f'[queue]\nbroker = "{redis_server.url}"\n'
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("requirepass", "p@ss word")
    assert _paths(tmp_path, queue) == {"queue.broker"}
    (tmp_path / "secret").write_text("p@ss word\n")
    assert _paths(tmp_path, f'{queue}password_file = "secret"\n') == set()


def test_a_postgresql_that_answers_is_no_problem(tmp_path: Path, postgres_url: str) -> None:
    assert _paths(tmp_path, f'[database]\nurl = "{postgres_url}"\n') == set()


def test_a_database_that_the_server_does_not_have_is_a_problem(
    tmp_path: Path, postgres_url: str
) -> None:
    assert _paths(tmp_path, f'[database]\nurl = "{postgres_url}_other"\n') == {"database.url"}
