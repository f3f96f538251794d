"""Logs are put together whatever happens to the messages on their way."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cairn_common.events import LogLine
from cairn_logs.core import Assembly

ATTEMPT = (0, 0)
NOW = datetime.now(UTC)

Sent = tuple[list[LogLine], bool]


def line(seq: int) -> LogLine:
    return LogLine(seq=seq, at=NOW, text=f"line {seq}")


def messages(total: int, sizes: list[int], from_seq: int = 0) -> list[Sent]:
    """What a bridge sends of a log of `total` lines: the last message has the last line."""
    rest = [line(seq) for seq in range(max(0, min(from_seq, total - 1)), total)]
    sent: list[Sent] = []
    for size in [*sizes, total]:
        if not rest:
            break
        sent.append((rest[:size], False))
        rest = rest[size:]
    if not sent:
        return [([], True)]
    return [*sent[:-1], (sent[-1][0], True)]


sizes = st.lists(st.integers(1, 5), max_size=10)


@given(st.data(), st.integers(0, 20), sizes)
def test_every_line_once_and_in_order(data: st.DataObject, total: int, sizes: list[int]) -> None:
    assembly = Assembly()
    taken: list[int] = []
    on_the_way = messages(total, sizes)
    for _ in range(200):
        if not on_the_way:
            break
        lines, final = on_the_way.pop(data.draw(st.integers(0, len(on_the_way) - 1)))
        fate = data.draw(st.sampled_from(["comes", "comes twice", "is lost"]))
        for _ in range(["is lost", "comes", "comes twice"].index(fate)):
            result = assembly.take(ATTEMPT, lines, final=final)
            taken += [each.seq for each in result.lines]
            assert taken == list(range(len(taken)))
            if result.whole:
                assert len(taken) == total
            if result.missing is not None:  # asked for, and the bridge sends again
                assert result.missing == len(taken)
                on_the_way += messages(total, data.draw(sizes_again), result.missing)
    # An end that nobody settles is reported again, with the log's last line, until all is there.
    for _ in range(2):
        for lines, final in messages(total, [], total):
            result = assembly.take(ATTEMPT, lines, final=final)
            taken += [each.seq for each in result.lines]
            if result.missing is not None:
                for more, end in messages(total, [3], result.missing):
                    taken += [each.seq for each in assembly.take(ATTEMPT, more, final=end).lines]
    assert taken == list(range(total))
    assert assembly.whole == {ATTEMPT}
    assert assembly.take(ATTEMPT, [], final=True).lines == []


sizes_again = st.lists(st.integers(1, 5), max_size=3)


@given(st.lists(st.integers(0, 30), max_size=40))
def test_lines_in_any_order_within_a_message(numbers: list[int]) -> None:
    assembly = Assembly()
    result = assembly.take(ATTEMPT, [line(seq) for seq in numbers], final=True)
    assert [each.seq for each in result.lines] == list(range(len(result.lines)))
    assert result.whole == (result.missing is None)
    if result.missing is not None:
        assert max(numbers) > len(result.lines) == result.missing


def test_attempts_do_not_mix() -> None:
    assembly = Assembly()
    assert assembly.take((0, 0), [line(0)], final=True).whole
    assert assembly.take((0, 1), [line(1)], final=False).missing == 0
    assert assembly.take((1, 0), [line(0)], final=False).lines == [line(0)]
    assert assembly.whole == {(0, 0)}


def test_an_archive_is_gone_on_with() -> None:
    assembly = Assembly()
    assembly.restore([((0, 0), 1, False), ((0, 0), 2, False), ((0, 0), 0, True)])
    assert assembly.take((0, 0), [line(1), line(2)], final=False).lines == [line(2)]
    assert assembly.whole == {(0, 0)}
