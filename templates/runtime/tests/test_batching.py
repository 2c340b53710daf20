"""Zero-wait batching, without sleeping: the score function is held by locks."""

import asyncio
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
