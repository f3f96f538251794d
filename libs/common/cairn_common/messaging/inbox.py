"""Reading a stream in batches, so that a batch can be one transaction.

An inbox is a durable pull consumer with acknowledge-all semantics: acknowledging a message
acknowledges all before it, so a batch of five hundred costs one acknowledgement. At most
`window` messages are in hand at a time; more are asked for only as those are acknowledged, which
is the back-pressure. Whatever happens to the durable or its stream (deleted, emptied, server
restarted), the inbox notices within seconds, makes them anew and goes on.

To acknowledge all before a message is right only if all before it came here. One may have gone to
a reader that should have ended (a process that was paused and asks once more before it learns
that its place was taken), or with a connection that broke. So the numbers that the durable gives
to its deliveries are watched: after a gap nothing is taken, and the durable is made anew at the
first message that was not acknowledged. Nor is a message acknowledged to a later durable than the
one that delivered it.

What is in hand for long comes again only if its reader is gone: the server is told that it is
still worked on. Else a minute's work would come six times.

Source: NATS ADR-13 (pull requests, status messages, idle heartbeats) and ADR-15 (numbers in the
subject of an acknowledgement, and the acknowledgement `+WPI`, work in progress).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from cairn_common.events.subjects import Stream
from cairn_common.messaging.connection import Bus
from cairn_common.messaging.streams import ensure_stream

log = structlog.get_logger(__name__)

_EXPIRES_SECONDS = 20.0
_HEARTBEAT_SECONDS = 2.0
_NANOSECONDS = 1_000_000_000
_BEGINS_ELSEWHERE = 10012
"""JetStream: "deliver policy can not be updated". Another reader has just made the durable anew."""
_RACES = 3
_IN_PROGRESS = b"+WPI"
_NO_HEADERS: dict[str, str] = {}


@dataclass(slots=True, eq=False)
class Message:
    """One message of a stream, in hand until its batch is acknowledged."""

    subject: str
    headers: Mapping[str, str]
    data: bytes
    reply: str
    inbox: Inbox
    incarnation: int = 0
    """Of the durable that delivered it."""

    @property
    def sequence(self) -> int:
        """The message's number in its stream."""
        return int(self.reply.split(".")[-4])


class _InHand(NamedTuple):
    """A message that is not acknowledged: where to, and since when it is here."""

    reply: str
    since: float


@dataclass(frozen=True, slots=True)
class _Durable:
    """The durable as it was found or made: `next` is the number of its next delivery."""

    existed: bool
    anew: bool
    next: int


class Inbox:
    """A durable consumer whose messages arrive through `deliver`, one call each, in order.

    Args:
        bus: the connection.
        stream: where the messages are.
        durable: the consumer's name; the same name goes on where the last one stopped.
        subject: the filter.
        deliver: called for each message; must not block.
        window: the most messages in hand or asked for.
        ack_seconds: after how long a message comes again whose reader does not say that it is
            still worked on.
        new_only: a durable that does not exist yet begins with the present, not with the past.
        on_restored: called after the durable had to be made anew while running.
    """

    def __init__(
        self,
        bus: Bus,
        stream: Stream,
        durable: str,
        subject: str,
        deliver: Callable[[Message], None],
        *,
        window: int = 1024,
        ack_seconds: float = 10.0,
        new_only: bool = False,
        on_restored: Callable[[], None] | None = None,
    ) -> None:
        self._bus = bus
        self._stream = stream
        self._durable = durable
        self._subject = subject
        self._deliver = deliver
        self._window = window
        self._ack_seconds = ack_seconds
        self._new_only = new_only
        self._on_restored = on_restored
        self._reply = ""
        self._subscription: Subscription | None = None
        self._watch: asyncio.Task[None] | None = None
        self._asked = 0  # requested from the server and not yet here
        self._in_hand: deque[_InHand] = deque()  # here and not yet acknowledged
        self._next = 1  # the number of the next delivery
        self._incarnation = 0
        self._last_sign = 0.0
        self._broken = asyncio.Event()

    async def start(self) -> None:
        """Make the durable if needed and begin to receive."""
        await self._begin(await self._ensure())
        self._touch()
        await self._ask()
        self._watch = asyncio.create_task(self._keep_alive(), name=f"inbox {self._durable}")

    async def close(self) -> None:
        """Stop receiving. What is in hand and not acknowledged will come again to another."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
            self._watch = None
        if self._subscription is not None and self._bus.client.is_connected:
            await self._subscription.unsubscribe()
        self._subscription = None

    async def ack(self, last: Message, count: int) -> None:
        """Acknowledge `last` and all before it, `count` messages in all."""
        if last.incarnation != self._incarnation:
            return  # they come again
        for _ in range(min(count, len(self._in_hand))):
            self._in_hand.popleft()
        if self._subscription is None:
            return
        try:
            await self._bus.client.publish(last.reply, b"")
            await self._ask()
        except NatsError as error:
            # Not acknowledged comes again, which every handler can bear.
            log.warning("acknowledgement not sent", durable=self._durable, error=str(error))
            self._broken.set()

    async def _ask(self) -> None:
        want = self._window - len(self._in_hand) - self._asked
        if self._asked and want < self._window // 2:
            return
        if want <= 0:
            return
        self._asked += want
        request = {
            "batch": want,
            "expires": int(_EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        await self._bus.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream.name}.{self._durable}",
            orjson.dumps(request),
            reply=self._reply,
        )

    async def _received(self, message: Msg) -> None:
        self._touch()
        headers = message.headers
        if headers and not message.reply and (status := headers.get("Status")):
            await self._status(status, headers)
            return
        if int(message.reply.rsplit(".", 3)[1]) != self._next:
            if not self._broken.is_set():
                log.info("a delivery went elsewhere", durable=self._durable, awaited=self._next)
                self._broken.set()
            return
        self._next += 1
        self._asked = max(0, self._asked - 1)
        self._in_hand.append(_InHand(message.reply, self._last_sign))
        self._deliver(
            Message(
                message.subject,
                headers or _NO_HEADERS,
                message.data,
                message.reply,
                self,
                self._incarnation,
            )
        )
        if self._asked == 0:
            await self._ask()

    async def _status(self, status: str, headers: Mapping[str, str]) -> None:
        if status == "100":  # idle heartbeat
            return
        left = int(headers.get("Nats-Pending-Messages", self._asked))
        self._asked = max(0, self._asked - left)
        if status == "408":  # the request expired: ask again
            await self._ask()
        else:  # 404, 409, 503: consumer or stream deleted, leader changed, server shutting down
            self._broken.set()

    async def _begin(self, durable: _Durable) -> None:
        self._next = durable.next
        self._asked = 0
        if durable.anew or self._subscription is None:
            # Messages in hand belong to the consumer that is gone.
            self._incarnation += 1
            self._in_hand.clear()
            await self._listen(self._incarnation)
            self._broken.clear()  # whatever it was, it was said by the one before

    async def _listen(self, incarnation: int) -> None:
        """What the durable before this one still sends, its end among it, goes nowhere."""

        async def received(message: Msg) -> None:
            if incarnation == self._incarnation:
                await self._received(message)

        former, self._reply = self._subscription, self._bus.client.new_inbox()
        self._subscription = await self._bus.client.subscribe(
            self._reply, cb=received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        if former is not None:
            await former.unsubscribe()

    def _touch(self) -> None:
        self._last_sign = asyncio.get_running_loop().time()

    async def _keep_alive(self) -> None:
        """Notices silence: the server promised a heartbeat, or a message, every two seconds."""
        look = min(_HEARTBEAT_SECONDS, self._ack_seconds / 4)
        while True:
            try:
                # Not wait_for: on Python 3.11 it can swallow a cancellation.
                async with asyncio.timeout(look):
                    await self._broken.wait()
            except TimeoutError:
                await self._say_in_progress(look)
                silent = asyncio.get_running_loop().time() - self._last_sign
                if self._asked == 0 or silent < 2.5 * _HEARTBEAT_SECONDS:
                    continue
            self._broken.clear()
            try:
                durable = await self._ensure()
                await self._begin(durable)
                self._touch()
                await self._ask()
            except (NatsError, OSError) as error:
                log.warning("inbox not restored yet", durable=self._durable, error=str(error))
                await asyncio.sleep(0.3)
                self._broken.set()
                continue
            if not durable.existed:
                log.warning("durable was gone and is restored", durable=self._durable)
                if self._on_restored is not None:
                    self._on_restored()

    async def _say_in_progress(self, seconds: float) -> None:
        """What has been in hand for so long is not to come again."""
        until = asyncio.get_running_loop().time() - seconds
        for each in itertools.takewhile(lambda each: each.since <= until, tuple(self._in_hand)):
            try:
                await self._bus.client.publish(each.reply, _IN_PROGRESS)
            except NatsError:  # no connection: whatever comes of that, the others notice it
                return

    async def _ensure(self) -> _Durable:
        """Create or update stream and durable.

        What a reader before this one had in hand, or this one itself, comes again now and in
        order, not after its `ack_seconds`: the durable is made anew at the first message that was
        not acknowledged. (A crash between the two steps makes the next reader begin with the
        oldest message, which every handler can bear.)
        """
        for _ in range(_RACES):
            try:
                return await self._ensure_once()
            except APIError as error:
                if error.err_code != _BEGINS_ELSEWHERE:
                    raise
        return await self._ensure_once()

    async def _ensure_once(self) -> _Durable:
        jetstream = self._bus.jetstream
        await ensure_stream(jetstream, self._stream)
        config = self._config()
        existed, anew, after = True, False, 0
        try:
            info = await jetstream.consumer_info(self._stream.name, self._durable)
        except APIError as error:
            if error.code != 404:
                raise
            existed, anew = False, True
        else:
            # Where a durable began cannot be changed, and need not be.
            config.deliver_policy = info.config.deliver_policy
            config.opt_start_seq = info.config.opt_start_seq
            after = info.delivered.consumer_seq if info.delivered is not None else 0
            if info.num_ack_pending and info.ack_floor is not None:
                config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
                config.opt_start_seq = info.ack_floor.stream_seq + 1
                await jetstream.delete_consumer(self._stream.name, self._durable)
                anew, after = True, 0
        await jetstream.add_consumer(self._stream.name, config)
        return _Durable(existed, anew, after + 1)

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._durable,
            filter_subject=self._subject,
            ack_policy=AckPolicy.ALL,
            ack_wait=self._ack_seconds,
            max_ack_pending=max(2 * self._window, 1000),
            deliver_policy=DeliverPolicy.NEW if self._new_only else DeliverPolicy.ALL,
        )
