"""BentoML with adaptive batching: requests that wait are scored together, however many; none is shed."""

import os

import bentoml
from shared import Customer, Pipeline


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    traffic={"timeout": 60, "max_concurrency": 1024},
    logging={"access": {"enabled": False}},
)
class Churn:
    def __init__(self):
        self.pipeline = Pipeline()

    @bentoml.api(batchable=True, max_batch_size=10_000, max_latency_ms=60_000)
    def predict(self, customers: list[Customer]) -> list[float]:
        return self.pipeline([customer.model_dump() for customer in customers])
