"""Where messages go that nobody can handle: kept with the reason, and stopping nothing.

A dead letter is the message as it came, on the subject `dead.<service>.<original subject>`, with
the reason in its headers. The stream is bounded: a flood of bad messages costs the oldest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from cairn_common.events import Envelope
from cairn_common.events.subjects import DEAD_LETTERS
from cairn_common.messaging.inbox import Message
from cairn_common.messaging.publisher import Publisher, RefusedError

log = structlog.get_logger(__name__)

_MAX_BODY_BYTES = 64 * 1024
_MAX_HEADER_BYTES = 8 * 1024
_MAX_SUBJECT_BYTES = 512
_REASON, _SERVICE, _TIME = "cairn-reason", "cairn-service", "cairn-time"
_SIZE, _SUBJECT = "cairn-size", "cairn-subject"
_OURS = frozenset({_REASON, _SERVICE, _TIME, _SIZE, _SUBJECT, "nats-msg-id"})


class DeadLetters:
    """Sends messages to `dead.<service>.<original subject>`.

    The original's headers are kept, as far as they are not monstrous; `cairn-reason`,
    `cairn-service`, `cairn-time`, `cairn-subject` and `cairn-size` are added. A body of more than
    64 KiB is cut.
    """

    def __init__(self, publisher: Publisher, service: str) -> None:
        self._publisher = publisher
        self._service = service

    async def send(self, message: Message, reason: str) -> None:
        """Returns once the dead letter is stored."""
        await self.send_all([(message, reason)])

    async def send_all(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Send messages with their reasons; returns once they are stored."""
        await self._send(
            (message.subject, message.headers, message.data, f"{message.sequence}", reason)
            for message, reason in letters
        )

    async def send_refused(self, refused: Sequence[tuple[Envelope, str]]) -> None:
        """Keep what was to be published and was refused; returns once that is stored."""
        await self._send(
            (
                letter.subject,
                letter.headers,
                letter.body,
                _id_of(letter),
                reason,
            )
            for letter, reason in refused
        )

    async def _send(
        self, letters: Iterable[tuple[str, Mapping[str, str], bytes, str, str]]
    ) -> None:
        envelopes = [self._envelope(*letter) for letter in letters]
        if not envelopes:
            return
        first = envelopes[0].headers
        log.error(
            "dead letters", number=len(envelopes), subject=first[_SUBJECT], reason=first[_REASON]
        )
        try:
            await self._publisher.publish(envelopes)
        except RefusedError as error:
            # Nothing is left to be done for them, and what comes after them must not wait.
            log.error("dead letters refused", error=str(error))

    def _envelope(
        self, subject: str, headers: Mapping[str, str], body: bytes, origin: str, reason: str
    ) -> Envelope:
        digest = hashlib.sha256(subject.encode() + body).hexdigest()
        added = {
            _REASON: _one_line(reason)[:1000],
            _SERVICE: self._service,
            _TIME: datetime.now(UTC).isoformat(),
            _SUBJECT: subject,
            _SIZE: str(len(body)),
            "Nats-Msg-Id": f"dead-{origin}-{digest[:32]}",
        }
        kept: dict[str, str] = {}
        room = _MAX_HEADER_BYTES
        for name, value in headers.items():
            room -= len(name) + len(value)
            if room >= 0 and name.lower() not in _OURS:
                kept[name] = _one_line(value)
        target = f"dead.{self._service}.{subject}"
        if len(target.encode()) > _MAX_SUBJECT_BYTES:
            target = f"dead.{self._service}.long-subject"
        return Envelope(target, kept | added, body[:_MAX_BODY_BYTES])


def _id_of(letter: Envelope) -> str:
    return letter.headers.get("Nats-Msg-Id", "")


def _one_line(text: str) -> str:
    """A header's value is one line of text that can be sent."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One of them as it lies in the stream.

    `size` is that of the whole body in bytes, of which `body` may be the beginning only.
    """

    number: int
    service: str
    subject: str
    reason: str
    at: datetime
    size: int
    headers: dict[str, str]
    body: bytes

    @property
    def whole(self) -> bool:
        """Whether nothing of the body was cut off."""
        return len(self.body) == self.size


class DeadLetterBox:
    """Reads, repeats and drops dead letters. Everything raises NatsError when NATS is away."""

    def __init__(self, jetstream: JetStreamContext, publisher: Publisher) -> None:
        self._jetstream = jetstream
        self._publisher = publisher

    async def newest(self, limit: int, before: int | None = None) -> tuple[list[DeadLetter], bool]:
        """The newest ones, oldest first, and whether there are older ones.

        Args:
            limit: how many at most.
            before: only those with lower numbers.
        """
        try:
            state = (await self._jetstream.stream_info(DEAD_LETTERS.name)).state
        except NotFoundError:  # somebody emptied the bus, and nobody has needed it since
            return [], False
        end = min(before or state.last_seq + 1, state.last_seq + 1)
        window = limit + 1
        while True:
            # Dropped ones leave gaps, so what is asked for may lie further back.
            start = max(state.first_seq, end - window)
            found = await self._between(start, end)
            if len(found) > limit or start <= state.first_seq:
                return found[-limit:], len(found) > limit
            window *= 4

    async def _between(self, start: int, end: int) -> list[DeadLetter]:
        found = []
        while start < end:
            try:
                message = await self._jetstream.get_msg(
                    DEAD_LETTERS.name, start, subject=">", next=True
                )
            except NotFoundError:
                break
            letter = _read(message)
            if letter.number >= end:
                break
            found.append(letter)
            start = letter.number + 1
        return found

    async def get(self, number: int) -> DeadLetter | None:
        """The one with this number."""
        try:
            return _read(await self._jetstream.get_msg(DEAD_LETTERS.name, number))
        except NotFoundError:
            return None

    async def drop(self, number: int) -> bool:
        """Remove one; False if there is none of that number."""
        if await self.get(number) is None:
            return False
        await self._jetstream.delete_msg(DEAD_LETTERS.name, number)
        return True

    async def replay(self, letter: DeadLetter) -> None:
        """Send the original once more, as a new message, and remove the dead letter.

        Raises:
            ValueError: its body was cut, so the original is gone.
            RefusedError: NATS does not take it.
        """
        if not letter.whole:
            raise ValueError(f"only {len(letter.body)} of its {letter.size} bytes were kept")
        headers = {
            **{k: v for k, v in letter.headers.items() if k.lower() not in _OURS},
            "Nats-Msg-Id": f"replay-{letter.number}-{letter.at.timestamp():.6f}",
        }
        await self._publisher.publish([Envelope(letter.subject, headers, letter.body)])
        await self.drop(letter.number)


def _read(message: RawStreamMsg) -> DeadLetter:
    """A dead letter, or whatever else somebody has put there."""
    headers = dict(message.headers or {})
    body = message.data or b""
    _, _, rest = (message.subject or "").partition(".")
    service, _, subject = rest.partition(".")
    return DeadLetter(
        number=message.seq or 0,
        service=headers.get(_SERVICE, service),
        subject=headers.get(_SUBJECT, subject),
        reason=headers.get(_REASON, "unknown"),
        at=_time(headers.get(_TIME)) or message.time or datetime.now(UTC),
        size=int(headers[_SIZE]) if headers.get(_SIZE, "").isdecimal() else len(body),
        headers=headers,
        body=body,
    )


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
