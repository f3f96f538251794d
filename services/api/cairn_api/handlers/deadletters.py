"""Dead letters: list, look at, send again, drop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query
from nats.errors import Error as NatsError

from cairn_api.core.deadletters import (
    DeadLetterAnswer,
    DeadLetterEntry,
    DeadLettersAnswer,
    entry,
    letter_answer,
    list_answer,
)
from cairn_api.core.errors import ApiError, unavailable
from cairn_api.handlers.context import MOST_ENTRIES, Ctx, check_page
from cairn_api.handlers.submitting import REFUSED
from cairn_common.messaging import DeadLetter, RefusedError

router = APIRouter(prefix="/api/dead-letters", tags=["Dead letters"], responses=REFUSED)

_HIGHEST = (1 << 63) - 1
LetterId = Annotated[int, Path(ge=1, le=_HIGHEST, description="Its number.")]


@router.get("")
async def list_dead_letters(
    context: Ctx,
    limit: Annotated[int, Query(description=f"At most {MOST_ENTRIES}.")] = 20,
    before: Annotated[
        int | None, Query(ge=1, le=_HIGHEST, description="Only those with lower numbers.")
    ] = None,
) -> DeadLettersAnswer:
    """The newest messages that no service could handle, with the reasons."""
    check_page(limit, 0)
    async with _answering():
        letters, more = await context.dead_letters.newest(limit, before)
    return list_answer([_entry(letter) for letter in letters], more=more)


@router.get("/{number}")
async def get_dead_letter(context: Ctx, number: LetterId) -> DeadLetterAnswer:
    """One of them with its headers and its body."""
    async with _answering():
        letter = await _find(context, number)
    return letter_answer(_entry(letter), letter.headers, letter.body)


@router.post("/{number}/replay")
async def replay_dead_letter(context: Ctx, number: LetterId) -> DeadLetterEntry:
    """Send it once more to where it was sent, and drop it: once what was wrong has been mended."""
    async with _answering():
        letter = await _find(context, number)
        try:
            await context.dead_letters.replay(letter)
        except RefusedError as error:
            raise ApiError(f"Dead letter {number} is not taken: {error}", "USAGE") from error
        except ValueError as error:
            raise ApiError(f"Dead letter {number} cannot be replayed: {error}.", "USAGE") from error
    return _entry(letter)


@router.delete("/{number}")
async def drop_dead_letter(context: Ctx, number: LetterId) -> DeadLetterEntry:
    """Remove it for good."""
    async with _answering():
        letter = await _find(context, number)
        await context.dead_letters.drop(number)
    return _entry(letter)


async def _find(context: Ctx, number: int) -> DeadLetter:
    letter = await context.dead_letters.get(number)
    if letter is None:
        raise ApiError(f"There is no dead letter {number}.", "NOTFOUND")
    return letter


def _entry(letter: DeadLetter) -> DeadLetterEntry:
    return entry(
        letter.number, letter.service, letter.subject, letter.reason, letter.at, letter.size
    )


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """NATS may be away."""
    try:
        yield
    except NatsError as error:
        raise unavailable("NATS does not answer.") from error
