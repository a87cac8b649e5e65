"""Lent buffers, without a connection: how far is received ahead, and when memory is used again."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.web.lending import BUFFER_BYTES, BUFFERS_AHEAD, Lane

LONG = 100 * BUFFER_BYTES


@dataclass
class Connection:
    """What a lane does to its connection."""

    is_paused: bool = False
    is_back: bool = False
    lost: list[Exception | None] = field(default_factory=list)

    def pause(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def parse_again(self) -> None:
        self.is_back = True

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def lane_of(connection: Connection, size_bytes: int) -> Lane:
    return Lane(
        connection,
        size_bytes,
        pause=connection.pause,
        resume=connection.resume,
        on_news=lambda: None,
    )


def receive(lane: Lane, size_bytes: int, letter: int = 65) -> None:
    while size_bytes:
        free = lane.get_buffer(-1)
        count = min(size_bytes, len(free))
        free[:count] = bytes([letter]) * count
        free.release()
        lane.buffer_updated(count)
        size_bytes -= count


def test_no_more_is_received_ahead_than_three_buffers() -> None:
    connection = Connection()
    lane = lane_of(connection, LONG)
    receive(lane, BUFFERS_AHEAD * BUFFER_BYTES)
    assert connection.is_paused
    piece = lane.take()
    assert piece is not None
    assert len(piece) == BUFFER_BYTES
    assert connection.is_paused
    del piece
    assert lane.take() is not None
    assert not connection.is_paused


def test_a_buffer_is_used_again_only_when_no_view_of_it_is_left() -> None:
    connection = Connection()
    lane = lane_of(connection, LONG)
    kept = []
    for letter in range(65, 75):
        receive(lane, BUFFER_BYTES, letter)
        piece = lane.take()
        assert piece is not None
        kept.append((letter, piece[5:7]))
        del piece
        while connection.is_paused:
            assert lane.take() is None  # it asks for more: it must get it, whatever it keeps
    assert [bytes(view) for _, view in kept] == [bytes([letter]) * 2 for letter, _ in kept]


def test_a_lane_takes_not_one_byte_more_than_its_body() -> None:
    connection = Connection()
    lane = lane_of(connection, BUFFER_BYTES + 10)
    receive(lane, BUFFER_BYTES)
    assert len(lane.get_buffer(-1)) == 10
    receive(lane, 10)
    assert connection.is_back
    assert [len(lane.take() or b"") for _ in range(3)] == [BUFFER_BYTES, 10, 0]


def test_a_reader_who_waited_gets_what_there_is() -> None:
    lane = lane_of(Connection(), LONG)
    receive(lane, 5)
    assert lane.take() is None
    lane.hurry()
    assert lane.take() == b"AAAAA"
    lane.hurry()
    receive(lane, 3, 66)
    assert lane.take() == b"BBB"
    assert lane.take() is None


def test_what_came_before_the_connection_was_lost_can_be_taken() -> None:
    connection = Connection()
    lane = lane_of(connection, LONG)
    receive(lane, 7)
    lane.connection_lost(None)
    assert lane.take() == b"AAAAAAA"
    assert connection.lost == [None]
