"""What a real nats-server lets whom do, once `cairn_common.security.accounts` has set it up."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client, RawCredentials

from cairn_common.events import TaskSettled, encode
from cairn_common.events.subjects import FACTS, PLACEMENTS, cluster_inbox
from cairn_common.messaging import Inbox, Message, Publisher, connect_bus, ensure_streams
from cairn_common.requests import CLUSTER_SUBJECT
from cairn_common.security import PassIssuer, subjects_of
from cairn_common.security.natsjwt import Key, credentials
from securing import NatsServer, secured_nats

# nats-py leaves the socket of a connection that the server has refused or ended to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
)

NORTH_1, NORTH_2, SOUTH_1 = "a1-0", "a2-0", "b1-0"


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Such sockets are collected here, and not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with secured_nats(tmp_path_factory.mktemp("nats"), ["north", "south"]) as server:
        yield server


@dataclass
class Talk:
    """A connection, and what the server complained of."""

    client: Client
    complaints: list[str]

    async def refused(self, word: str) -> None:
        """The last thing that was tried is refused."""
        async with asyncio.timeout(5):
            while not any(word in each for each in self.complaints):
                await asyncio.sleep(0.01)
        self.complaints.clear()


@asynccontextmanager
async def talking(server: NatsServer, creds: str | Path) -> AsyncIterator[Talk]:
    complaints: list[str] = []

    async def complain(error: Exception) -> None:
        complaints.append(str(error).lower())

    client = await nats.connect(
        server.url,
        user_credentials=creds if isinstance(creds, Path) else RawCredentials(creds),
        error_cb=complain,
        allow_reconnect=False,
        connect_timeout=10,
    )
    try:
        yield Talk(client, complaints)
    finally:
        await client.close()


async def cannot_say(server: NatsServer, credentials: Path | str, subject: str) -> None:
    """Whoever has these credentials is refused, and no service hears what it says."""
    async with (
        talking(server, credentials) as somebody,
        talking(server, server.folder / "services.creds") as services,
    ):
        heard = await services.client.subscribe(subject)
        await services.client.flush()
        await somebody.client.publish(subject, b"x")
        await somebody.client.flush()
        await somebody.refused("permissions violation for publish")
        with pytest.raises(nats.errors.TimeoutError):
            await heard.next_msg(0.2)


def issued(server: NatsServer, cluster: str, name: str, now: float | None = None) -> str:
    issuer = PassIssuer.from_file(server.folder / f"tasks-{cluster}.json", 60)
    return issuer.issue(name, time.time() if now is None else now)


async def test_a_task_speaks_and_hears_below_its_own_subject_and_services_hear_it(
    server: NatsServer,
) -> None:
    own = subjects_of("north", NORTH_1).removesuffix(">")
    async with (
        talking(server, issued(server, "north", NORTH_1)) as task,
        talking(server, server.folder / "services.creds") as services,
    ):
        heard = await services.client.subscribe("task.own.>")
        mine = await task.client.subscribe(f"{own}>")
        await services.client.flush()
        await task.client.flush()
        await task.client.publish(f"{own}progress", b"42")
        assert (await mine.next_msg(5)).data == b"42"
        message = await heard.next_msg(5)
        assert (message.subject, message.data) == (f"{own}progress", b"42")
        assert not task.complaints


@pytest.mark.parametrize(
    "subject",
    [
        subjects_of("north", NORTH_2).replace(">", "progress"),
        subjects_of("south", SOUTH_1).replace(">", "progress"),
        "task.finished.1.story-1",
        "task.log.1.story-1",
        "workflow.submitted.1.story-1",
        "engine.attempts",
        f"$JS.API.STREAM.DELETE.{FACTS.name}",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_a_task_cannot_write_what_is_not_its_own(server: NatsServer, subject: str) -> None:
    await cannot_say(server, issued(server, "north", NORTH_1), subject)


@pytest.mark.parametrize(
    "subject",
    [
        subjects_of("north", NORTH_2),
        subjects_of("north", "*"),
        "task.own.>",
        ">",
        "task.ready.>",
        "_INBOX.>",
    ],
)
async def test_a_task_cannot_read_what_is_not_its_own(server: NatsServer, subject: str) -> None:
    async with talking(server, issued(server, "north", NORTH_1)) as task:
        await task.client.subscribe(subject)
        await task.client.flush()
        await task.refused("permissions violation for subscription")


async def test_what_services_say_below_a_tasks_subject_stays_in_their_account(
    server: NatsServer,
) -> None:
    own = subjects_of("north", NORTH_1)
    async with (
        talking(server, issued(server, "north", NORTH_1)) as task,
        talking(server, server.folder / "services.creds") as services,
    ):
        mine = await task.client.subscribe(own)
        await task.client.flush()
        await services.client.publish(own.replace(">", "order"), b"x")
        await services.client.flush()
        with pytest.raises(nats.errors.TimeoutError):
            await mine.next_msg(0.2)


async def test_a_pass_that_is_over_opens_nothing(server: NatsServer) -> None:
    old = issued(server, "north", NORTH_1, time.time() - 61)
    with pytest.raises((nats.errors.Error, OSError)):
        async with talking(server, old):
            pass


async def test_the_server_ends_a_connection_whose_pass_runs_out(server: NatsServer) -> None:
    almost = issued(server, "north", NORTH_1, time.time() - 58)
    async with talking(server, almost) as task:
        async with asyncio.timeout(10):
            while not task.client.is_closed:
                await asyncio.sleep(0.05)


async def test_the_key_of_a_cluster_cannot_make_a_user_that_may_do_more(
    server: NatsServer,
) -> None:
    issuer = PassIssuer.from_file(server.folder / "tasks-north.json", 60)
    signing, user = issuer._signing, Key.user()
    everything = {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}, "subs": -1, "payload": -1}
    claims = {"type": "user", "issuer_account": issuer._account, **everything}
    token = signing.token(user.public, NORTH_1, claims, now=int(time.time()))
    with pytest.raises((nats.errors.Error, OSError)):
        async with talking(server, credentials(token, user)):
            pass


def test_a_pass_has_a_name_that_is_one_token(server: NatsServer) -> None:
    for name in ("*", ">", "a.b", ""):
        with pytest.raises(ValueError, match="cannot be part"):
            issued(server, "north", name)


async def test_a_bridge_hears_and_says_what_is_for_its_cluster(server: NatsServer) -> None:
    services = await connect_bus(server.url, "engine", credentials=server.folder / "services.creds")
    bridge = await connect_bus(
        server.url, "bridge-north", credentials=server.folder / "bridge-north.creds"
    )
    try:
        await ensure_streams(services.jetstream)
        await ensure_streams(bridge.jetstream)
        for name in ("bridge-north", "bridge-south"):
            request = bridge.jetstream.add_consumer(
                PLACEMENTS.name, durable_name=name, filter_subject="task.*.north.*"
            )
            if name == "bridge-north":
                assert (await request).name == name
            else:
                with pytest.raises(nats.errors.TimeoutError):
                    await asyncio.wait_for(request, 6)
    finally:
        await bridge.broker.stop()
        await services.broker.stop()


async def test_a_bridge_takes_up_what_the_one_before_it_had_in_hand(server: NatsServer) -> None:
    services = await connect_bus(server.url, "engine", credentials=server.folder / "services.creds")
    await ensure_streams(services.jetstream)
    publisher = Publisher(services)
    await publisher.start()
    orders = [
        TaskSettled(cluster="south", workflow=f"w-{number}", attempts=[]) for number in range(3)
    ]
    await publisher.publish([encode(order, source="/test") for order in orders])
    try:
        for turn in range(2):
            bridge = await connect_bus(
                server.url, "bridge-south", credentials=server.folder / "bridge-south.creds"
            )
            taken: asyncio.Queue[Message] = asyncio.Queue()
            inbox = Inbox(
                bridge, PLACEMENTS, "bridge-south", cluster_inbox("south"), taken.put_nowait
            )
            await inbox.start()
            async with asyncio.timeout(10):
                messages = [await taken.get() for _ in range(3)]
            if turn:
                await inbox.ack(messages[-1], 3)
            await inbox.close()
            await bridge.broker.stop()
    finally:
        await publisher.close()
        await services.broker.stop()


@pytest.mark.parametrize(
    "subject",
    [
        CLUSTER_SUBJECT,
        "cluster.changed.north",
        "cluster.heartbeat.south",
        "task.ready.north.w-1",
        "workflow.finished.0.w-1",
    ],
)
async def test_a_bridge_cannot_order_or_speak_for_the_engine_or_another_cluster(
    server: NatsServer, subject: str
) -> None:
    await cannot_say(server, server.folder / "bridge-north.creds", subject)


async def test_a_bridge_cannot_hear_the_answers_to_others(server: NatsServer) -> None:
    async with talking(server, server.folder / "bridge-north.creds") as bridge:
        for subject in ("_INBOX.>", "_INBOX.engine.>", "task.ready.south.>"):
            await bridge.client.subscribe(subject)
            await bridge.client.flush()
            await bridge.refused("permissions violation for subscription")


def test_a_folder_that_is_in_use_is_left_alone(server: NatsServer) -> None:
    before = {path: path.read_bytes() for path in server.folder.iterdir() if path.is_file()}
    done = subprocess.run(
        [sys.executable, "-m", "cairn_common.security.accounts", server.folder, "--cluster", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert before == {path: path.read_bytes() for path in before}
