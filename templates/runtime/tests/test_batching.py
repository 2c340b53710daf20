"""Zero-wait batching, without sleeping: the score function is held by locks."""

import asyncio
import os
import socket
import threading
import unittest

from mlrails_runtime.batching import Batcher
from mlrails_runtime.problem import Problem
from mlrails_runtime.service import NotPerRow


class Gate:
    """A score function that notes its batches; the first call waits until it is opened."""

    def __init__(self):
        self.batches = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, rows):
        self.batches.append(list(rows))
        self.entered.set()
        self.open.wait(10)
        if any(row == ("bad",) for row in rows):
            raise ValueError("a bad row")
        return [row[0] for row in rows]


class Batching(unittest.IsolatedAsyncioTestCase):
    def batcher(self, score, **settings):
        chosen = {"queue_limit": 8, "batch_rows": 4, "timeout": 30.0, **settings}
        made = Batcher(lambda: score, asyncio.get_running_loop(), **chosen)
        made.start()
        self.addCleanup(made.stop)
        return made

    async def busy(self, **settings):
        """A batcher whose thread is held by one request."""
        gate = Gate()
        made = self.batcher(gate, **settings)
        first = made.submit([("first",)])
        await asyncio.to_thread(gate.entered.wait, 10)
        return gate, made, first

    async def test_a_single_request_is_scored_at_once(self):
        gate = Gate()
        gate.open.set()
        self.assertEqual(await self.batcher(gate).submit([(1,)]), [1])

    async def test_what_queued_meanwhile_goes_together_up_to_the_limit(self):
        gate, made, first = await self.busy()
        waiting = [made.submit([(at,)]) for at in range(5)]
        gate.open.set()
        self.assertEqual(await first, ["first"])
        self.assertEqual([await one for one in waiting], [[at] for at in range(5)])
        self.assertEqual([len(batch) for batch in gate.batches], [1, 4, 1])

    async def test_a_bad_row_fails_alone(self):
        gate, made, first = await self.busy()
        good, bad, other = made.submit([(1,)]), made.submit([("bad",)]), made.submit([(2,), (3,)])
        gate.open.set()
        self.assertEqual([await first, await good, await other], [["first"], [1], [2, 3]])
        with self.assertRaisesRegex(ValueError, "a bad row"):
            await bad

    async def test_other_options_are_another_batch(self):
        gate, made, first = await self.busy()
        waiting = [made.submit([(at,)], key) for at, key in enumerate(["a", "a", "b", "a"])]
        gate.open.set()
        await asyncio.gather(first, *waiting)
        self.assertEqual([len(batch) for batch in gate.batches], [1, 2, 1, 1])

    async def test_a_full_queue_is_503_with_retry_after(self):
        gate, made, first = await self.busy(queue_limit=2)
        second = made.submit([(1,)])
        with self.assertRaises(Problem) as caught:
            made.submit([(2,)])
        self.assertEqual((caught.exception.status, caught.exception.headers), (503, [("retry-after", "1")]))
        gate.open.set()
        await asyncio.gather(first, second)
        self.assertEqual(await made.submit([(3,)]), [3])

    async def test_who_was_cancelled_leaves_before_scoring(self):
        gate, made, first = await self.busy()
        gone, stays = made.submit([("gone",)]), made.submit([("stays",)])
        gone.cancel()
        gate.open.set()
        await asyncio.gather(first, stays)
        self.assertNotIn(("gone",), [row for batch in gate.batches for row in batch])

    async def test_a_request_that_hangs_is_given_up(self):
        gate, made, first = await self.busy(timeout=0.3)
        behind = made.submit([(1,)])
        for late in (first, behind):
            with self.assertRaises(Problem) as caught:
                await late
            self.assertEqual(caught.exception.status, 503)
        gate.open.set()

    async def test_what_expired_in_the_queue_is_not_scored(self):
        gate = Gate()
        gate.open.set()
        with self.assertRaises(Problem) as caught:
            await self.batcher(gate, timeout=0.0).submit([(1,)])
        self.assertEqual((caught.exception.status, gate.batches), (503, []))

    async def test_answers_that_are_not_per_row_are_not_batched_again(self):
        def score(rows):
            if len(rows) > 1:
                raise NotPerRow("one answer for all")
            return ["alone"]

        made = self.batcher(score)
        self.assertEqual(await asyncio.gather(made.submit([(1,)]), made.submit([(2,)])), [["alone"], ["alone"]])
        with self.assertRaises(NotPerRow):
            await made.submit([(1,), (2,)])
        self.assertFalse(made.per_row)

    async def quick(self, score, **settings):
        """A batcher that was tried with one row, and is ready."""
        ready = threading.Event()
        made = self.batcher(score, loaded=ready.set, trial=lambda: [("trial",)], **settings)
        await asyncio.to_thread(ready.wait, 10)
        return made

    async def test_what_is_quick_is_scored_by_the_loop_and_together(self):
        threads, batches = [], []

        def score(rows):
            threads.append(threading.current_thread().name)
            batches.append(len(rows))
            return [row[0] for row in rows]

        made = await self.quick(score)
        self.assertTrue(made.quick_here)
        del threads[:], batches[:]
        answers = await asyncio.gather(*(made.submit([(at,)]) for at in range(6)))
        self.assertEqual(answers, [[at] for at in range(6)])
        self.assertEqual((set(threads), batches), ({threading.current_thread().name}, [4, 2]))

    async def test_who_has_begun_to_send_is_waited_for_once(self):
        batches = []

        def score(rows):
            batches.append(len(rows))
            return [row[0] for row in rows]

        made = await self.quick(score)
        del batches[:]
        made.reading = 2  # one that submits two turns later, and one that never does
        first = made.submit([(1,)])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        made.reading = 1
        await asyncio.gather(first, made.submit([(2,)]))
        turns = 0
        alone = made.submit([(3,)])
        while not alone.done():
            await asyncio.sleep(0)
            turns += 1
        self.assertEqual(batches, [2, 1])
        self.assertLess(turns, 10)

    async def test_a_pipeline_of_one_thread_only_stays_there(self):
        home = []

        def score(rows):
            home.append(threading.get_ident())
            if threading.get_ident() != home[0]:
                raise RuntimeError("made in another thread")
            return [row[0] for row in rows]

        made = await self.quick(score)
        self.assertFalse(made.quick_here)
        self.assertEqual(await made.submit([(1,)]), [1])

    async def test_a_pipeline_that_answers_otherwise_in_another_thread_stays_there(self):
        local = threading.local()

        def load():
            local.offset = 1
            return lambda rows: [row[0] + getattr(local, "offset", 0) for row in rows]

        ready = threading.Event()
        made = Batcher(
            load, asyncio.get_running_loop(), queue_limit=8, batch_rows=4, timeout=30.0, loaded=ready.set, trial=lambda: [(1,)]
        )
        made.start()
        self.addCleanup(made.stop)
        await asyncio.to_thread(ready.wait, 10)
        self.assertEqual((made.quick_here, await made.submit([(1,)])), (False, [2]))

    async def test_what_fails_in_the_loop_is_tried_in_the_scoring_thread(self):
        loop_thread = threading.get_ident()

        def score(rows):
            if rows[0] == ("here",) and threading.get_ident() == loop_thread:
                raise RuntimeError("not in this thread")
            if rows[0] == ("bad",):
                raise ValueError("a bad row")
            return [row[0] for row in rows]

        made = await self.quick(score)
        with self.assertRaisesRegex(ValueError, "a bad row"):
            await made.submit([("bad",)])
        self.assertTrue(made.quick_here)
        for strikes_left in (True, True, False):
            self.assertEqual(await made.submit([("here",)]), ["here"])
            self.assertEqual(made.quick_here, strikes_left)

    async def test_the_loop_waits_for_no_file_even_where_its_absence_has_an_answer(self):
        threads = []

        def score(rows):
            threads.append(threading.current_thread().name)
            if rows[0] != ("read",):
                return ["computed"]
            try:
                with open(os.devnull):
                    return ["read"]
            except BaseException:
                return ["a wrong answer"]

        made = await self.quick(score)
        self.assertTrue(made.quick_here)
        del threads[:]
        self.assertEqual(await made.submit([("read",)]), ["read"])
        self.assertEqual(threads, [threading.current_thread().name, "scoring"])

    async def test_a_pipeline_that_waits_for_somebody_is_not_the_loop_s(self):
        one, other = socket.socketpair()
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        one.settimeout(0.002)

        def score(rows):
            try:
                one.recv(1)  # as from a database, on a connection that was opened before
            except TimeoutError:
                return [1]

        self.assertFalse((await self.quick(score)).quick_here)

    async def test_what_lasts_is_left_to_the_scoring_thread(self):
        threads = []

        def score(rows):
            threads.append(threading.current_thread().name)
            return [row[0] for row in rows]

        made = await self.quick(score)
        made._costs.note(4, 1.0)
        del threads[:]
        await asyncio.gather(made.submit([(1,)] * 4), made.submit([(2,)]))
        await made.submit([(3,)])
        self.assertEqual(threads, ["scoring", "scoring", threading.current_thread().name])

    async def test_small_requests_go_between_the_pieces_of_a_large_one(self):
        gate, made, first = await self.busy()
        large = made.submit([(at,) for at in range(10)])
        small = made.submit([("small",)])
        gate.open.set()
        self.assertEqual([await first, await small, await large], [["first"], ["small"], list(range(10))])
        self.assertEqual([len(batch) for batch in gate.batches], [1, 4, 1, 4, 2])

    async def test_rows_that_belong_together_are_scored_whole_and_alone(self):
        gate, made, first = await self.busy()
        made.per_row = False
        waiting = [made.submit([(at,)] * size) for at, size in enumerate((1, 10, 2))]
        gate.open.set()
        await asyncio.gather(first, *waiting)
        self.assertEqual([len(batch) for batch in gate.batches], [1, 1, 10, 2])

    async def test_a_model_that_cannot_be_loaded_is_told(self):
        told, seen = threading.Event(), []

        def load():
            raise SystemExit("no")

        def failed(error):
            seen.append(error)
            told.set()

        Batcher(load, asyncio.get_running_loop(), queue_limit=1, batch_rows=1, timeout=1.0, failed=failed).start()
        self.assertTrue(await asyncio.to_thread(told.wait, 10))
        self.assertIsInstance(seen[0], SystemExit)


if __name__ == "__main__":
    unittest.main()
