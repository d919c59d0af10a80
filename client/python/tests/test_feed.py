"""The sending side of a partition against a peer that speaks the real protocol: window, credit, flush, resending, faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from peer import Peer

from ballast.errors import BallastError
from ballast.model import Column
from ballast.spark.columns import Source
from ballast.spark.feed import FeedCounts, FeedTask, feed_partition
from ballast.v1 import worker_pb2

SOURCE = Source(Column("x", "int64", (2,)), "x", nested=False)
ROW_BYTES = 16


def task(peer: Peer, **changes: object) -> FeedTask:
    settings: dict[str, object] = dict(
        address=peer.address, run="r", epoch=1, sources=(SOURCE,), schema="x:int64[2]", batch_rows=4, has_ids=True, patience_s=20.0, stall_s=10.0
    )
    return FeedTask(**{**settings, **changes})  # type: ignore[arg-type]


def rows(count: int, piece: int = 7, change: int = -1) -> list[pa.RecordBatch]:
    """Record batches of odd sizes; row i holds (i, 2i). `change`: a row with another content."""
    x = np.stack([np.arange(count), 2 * np.arange(count)], axis=1)
    if change >= 0:
        x[change, 1] += 1
    lists = pa.array(x.tolist(), pa.list_(pa.int64()))
    whole = pa.RecordBatch.from_arrays([lists, pa.array(np.arange(count))], names=["c0", "id"])
    return [whole.slice(i, piece) for i in range(0, count, piece)]


def feed(peer: Peer, count: int, **changes: object) -> FeedCounts:
    return feed_partition(task(peer, **changes), 0, "test", rows(count))


def assert_each_row_once(peer: Peer, count: int) -> None:
    got = b"".join(peer.ledger.trained[k].columns[0].data for k in sorted(peer.ledger.trained))
    values = np.frombuffer(got, dtype="<i8").reshape(-1, 2)
    assert values[:, 0].tolist() == list(range(count))


def test_every_row_arrives_once_and_is_acknowledged() -> None:
    with Peer() as peer:
        counts = feed(peer, 30)
        assert (counts.batches, counts.rows, counts.trained) == (8, 30, 8)
        assert_each_row_once(peer, 30)
        assert peer.workers[0].opens[0].schema == "x:int64[2]"


def test_full_window_flushes_before_it_waits() -> None:
    with Peer() as peer:
        peer.control.window_bytes = 1  # so the least number of rows bounds it: 8
        feed(peer, 40)
        assert_each_row_once(peer, 40)
        assert peer.workers[0].peak_unacknowledged_rows <= 8
        assert peer.workers[0].flushes > 0


def test_credit_is_never_overdrawn() -> None:
    with Peer(credit_bytes=4 * ROW_BYTES) as peer:  # one batch
        feed(peer, 40)
        assert_each_row_once(peer, 40)
        assert peer.workers[0].overdrawn == 0


def test_batch_larger_than_all_credit_is_still_sent() -> None:
    with Peer(credit_bytes=1) as peer:
        feed(peer, 20)
        assert_each_row_once(peer, 20)


def test_unacknowledged_batches_go_to_another_worker() -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].break_after = 3
        counts = feed(peer, 40)
        assert counts.reopened == 1
        assert_each_row_once(peer, 40)
        assert peer.control.opened[1].avoid == [peer.control.workers[0]]
        assert peer.workers[1].received[0] == 0


def test_batches_trained_before_the_break_are_not_sent_again() -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].break_after, peer.workers[0].lose_acks = 3, True
        counts = feed(peer, 40)
        assert_each_row_once(peer, 40)
        assert counts.duplicates == 3
        assert min(peer.workers[1].received) == 3


def test_the_only_worker_is_tried_again() -> None:
    with Peer() as peer:
        peer.workers[0].break_after = 2
        counts = feed(peer, 20)
        assert counts.reopened == 1
        assert_each_row_once(peer, 20)


def test_silent_worker_is_left() -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].mute_after = 1
        counts = feed(peer, 20, stall_s=0.5)
        assert counts.reopened >= 1
        assert_each_row_once(peer, 20)


def test_patience_ends_with_the_peer_and_the_option() -> None:
    with Peer() as peer:
        peer.stop_worker(0)
        with pytest.raises(BallastError) as error:
            feed(peer, 20, patience_s=1.0)
        assert error.value.reason == "FEED_LOST"
        assert peer.control.workers[0] in str(error.value) and "patience_s" in str(error.value)


def test_time_that_spark_takes_is_not_the_workers() -> None:
    def slow() -> Iterator[pa.RecordBatch]:
        pieces = rows(20)
        yield pieces[0]
        threading.Event().wait(1.5)  # longer than patience; the worker breaks meanwhile
        yield from pieces[1:]

    with Peer(workers=2) as peer:
        peer.workers[0].break_after = 1
        counts = feed_partition(task(peer, patience_s=1.0), 0, "test", slow())
        assert counts.reopened == 1
        assert_each_row_once(peer, 20)


def test_fault_with_retry_opens_again() -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].fault = worker_pb2.FeedDown.Fault(reason="WORKER_UNAVAILABLE", message="drains", retry=True)
        feed(peer, 20)
        assert_each_row_once(peer, 20)


def test_fault_without_retry_ends_the_task() -> None:
    with Peer() as peer:
        peer.workers[0].fault = worker_pb2.FeedDown.Fault(reason="RUN_STOPPED", message="8 batches in a row were skipped", retry=False)
        with pytest.raises(BallastError) as error:
            feed(peer, 20)
        assert error.value.reason == "RUN_STOPPED"


def test_second_attempt_sends_only_the_probe() -> None:
    with Peer() as peer:
        feed(peer, 30)
        sent = len(peer.workers[0].received)
        counts = feed(peer, 30)
        assert counts.trained == 0 and counts.unsent == 7 and counts.duplicates == 1
        assert peer.workers[0].received[sent:] == [7]
        assert (counts.batches, counts.rows) == (8, 30)


def test_changed_data_is_noticed_on_a_second_attempt() -> None:
    with Peer() as peer:
        feed(peer, 30)
        with pytest.raises(BallastError) as error:
            feed_partition(task(peer), 0, "test", rows(30, change=2))  # a row of a batch that is not sent again
        assert error.value.reason == "FINGERPRINT_DIFFERS"


def test_late_feed_of_a_committed_epoch_sends_nothing() -> None:
    with Peer() as peer:
        peer.ledger.committed[1] = object()
        counts = feed(peer, 30)
        assert (counts.batches, counts.rows, counts.unsent) == (8, 30, 8)
        assert peer.workers[0].opens == [] and peer.ledger.trained == {}


def test_commit_while_feeding_ends_the_late_twin() -> None:
    with Peer(workers=2) as peer:
        peer.workers[0].break_after = 2
        peer.control.committed_from_open = 2
        counts = feed(peer, 40)
        assert counts.batches == 10 and counts.unsent + counts.duplicates == 10


def test_skipped_batches_count_as_done() -> None:
    with Peer() as peer:
        peer.ledger.skip = lambda r: r.seq == 1
        counts = feed(peer, 20)
        assert (counts.trained, counts.skipped) == (4, 1)


def test_empty_partition_opens_nothing() -> None:
    with Peer() as peer:
        counts = feed(peer, 0)
        assert counts.batches == 0 and peer.control.opened == []


def test_other_protocol_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer() as peer:
        monkeypatch.setattr("peer.PROTOCOL", 2)
        with pytest.raises(BallastError) as error:
            feed(peer, 20)
        assert error.value.reason == "PROTOCOL_DIFFERS" and "install" in str(error.value)
