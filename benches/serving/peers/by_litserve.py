"""LitServe with batching: up to 64 requests that wait are scored together. A request is a list of rows; it validates with the same class."""

import itertools
import os
import sys

import litserve
from shared import Customer, Pipeline


class Churn(litserve.LitAPI):
    def setup(self, device):
        self.pipeline = Pipeline()

    def decode_request(self, request):
        return [Customer.model_validate(row).model_dump() for row in request["customers"]]

    def batch(self, inputs):
        self.sizes = [len(rows) for rows in inputs]
        return [row for rows in inputs for row in rows]

    def predict(self, rows):
        return self.pipeline(rows)

    def unbatch(self, answers):
        ends = list(itertools.accumulate(self.sizes))
        return [answers[end - size : end] for size, end in zip(self.sizes, ends)]

    def encode_response(self, answers):
        return {"predictions": answers}


if __name__ == "__main__":
    workers = int(os.environ["BENCH_WORKERS"])
    api = Churn(max_batch_size=64, batch_timeout=float(os.environ.get("BENCH_BATCH_TIMEOUT", "0.001")))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", num_api_servers=workers, generate_client_file=False, log_level="error")
