from __future__ import annotations

from typing import Any

from flows.sources.kafka_log import EVERY_S, MOST_KINDS, Sparing, client_logger


def test_the_same_message_passes_once_a_minute_and_says_how_many_were_held_back() -> None:
    now = [0.0]
    it = Sparing(monotonic=lambda: now[0])
    said = []
    for i in range(1_200):  # a minute of a broker that is away
        now[0] = i / 20
        said.append(it.passes(f"Connect to 127.0.0.1:9092 failed: Connection refused (after {i}ms)"))
    assert [x for x in said if x is not None] == [0]
    now[0] = EVERY_S + 1
    assert it.passes("Connect to 127.0.0.1:9092 failed: Connection refused (after 0ms)") == 1_199


def test_another_message_passes_and_memory_is_bounded() -> None:
    it = Sparing(monotonic=lambda: 0.0)
    assert it.passes("a") == it.passes("b") == 0
    for i in range(5 * MOST_KINDS):
        it.passes("x" * (i % 119) + "y" * (i // 119))
    assert len(it._seen) <= MOST_KINDS


def test_lines_of_librdkafka_become_structured_lines_of_ours(capsys: Any) -> None:
    line = "FAIL [rdkafka#consumer-1] [thrd:10.0.0.7:9092/1]: 10.0.0.7:9092/1: Test of the log"
    for _ in range(30):
        client_logger().error(line)
    said = capsys.readouterr().out
    assert said.count("10.0.0.7:9092/1: Test of the log") == 1
