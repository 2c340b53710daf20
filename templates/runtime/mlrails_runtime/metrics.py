"""Counters and histograms of all workers, and the Prometheus text (exposition format 0.0.4) of `/metrics`.

Each number is a cell of the board, so counting is one addition and a scrape of any worker tells of all.
"""

from __future__ import annotations

import bisect

ROUTES = ("/predict", "/v1", "/v2", "/invocations", "other")
STATUSES = (200, 400, 404, 405, 408, 413, 415, 422, 499, 500, 503)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)

_REQUESTS = 0
_LATENCY = _REQUESTS + len(ROUTES) * len(STATUSES)
_SCORING = _LATENCY + len(SECONDS) + 2
_BATCH = _SCORING + len(SECONDS) + 2
_ROWS = _BATCH + len(ROWS) + 2
_QUEUE = _ROWS + 1
_IN_FLIGHT = _QUEUE + 1
_FAILURES = _IN_FLIGHT + 1
CELLS = _FAILURES + 1


class Metrics:
    """One worker's numbers; `text` is of all workers."""

    def __init__(self, slot, service):
        self._cells = slot.cells
        self._board = slot.board
        self._service = service
        # What a worker that died had in flight ended with it.
        self._cells[_QUEUE] = self._cells[_IN_FLIGHT] = 0.0
        self._place = {
            (route, status): _REQUESTS + at * len(STATUSES) + to
            for at, route in enumerate(ROUTES)
            for to, status in enumerate(STATUSES)
        }

    def started(self):
        self._cells[_IN_FLIGHT] += 1.0

    def answered(self, route, status, seconds=None):
        """A request's end; `seconds` for those that asked for a prediction."""
        place = self._place.get((route, status))
        if place is None:
            place = self._place.get((route, status // 100 * 100), self._place[route, 500])
        self._cells[place] += 1.0
        if seconds is not None:
            self._cells[_IN_FLIGHT] -= 1.0
            _observe(self._cells, _LATENCY, SECONDS, seconds)

    def scored(self, rows, seconds):
        """From the scoring thread, the only one that writes these cells."""
        self._cells[_ROWS] += rows
        _observe(self._cells, _BATCH, ROWS, rows)
        _observe(self._cells, _SCORING, SECONDS, seconds)

    def waiting(self, count):
        self._cells[_QUEUE] = count

    def failed(self):
        self._cells[_FAILURES] += 1.0

    def text(self):
        total = self._board.total
        lines = []

        def head(name, kind, meaning):
            lines.append(f"# HELP {name} {meaning}")
            lines.append(f"# TYPE {name} {kind}")

        def histogram(name, meaning, base, bounds):
            head(name, "histogram", meaning)
            running = 0.0
            for at, bound in enumerate(bounds):
                running += total(base + at)
                lines.append(f'{name}_bucket{{le="{bound}"}} {_number(running)}')
            running += total(base + len(bounds))
            lines.append(f'{name}_bucket{{le="+Inf"}} {_number(running)}')
            lines.append(f"{name}_sum {total(base + len(bounds) + 1)!r}")
            lines.append(f"{name}_count {_number(running)}")

        head("mlrails_requests_total", "counter", "Requests answered, by contract and status.")
        for (route, status), place in self._place.items():
            count = total(place)
            if count or (route, status) == ("/predict", 200):
                lines.append(f'mlrails_requests_total{{route="{route}",status="{status}"}} {_number(count)}')
        histogram("mlrails_request_seconds", "From request head to answer, of predictions.", _LATENCY, SECONDS)
        histogram("mlrails_scoring_seconds", "Time in the pipeline, per batch.", _SCORING, SECONDS)
        histogram("mlrails_batch_rows", "Rows scored together.", _BATCH, ROWS)
        head("mlrails_rows_total", "counter", "Rows scored.")
        lines.append(f"mlrails_rows_total {_number(total(_ROWS))}")
        head("mlrails_scoring_failures_total", "counter", "Requests on which the pipeline raised.")
        lines.append(f"mlrails_scoring_failures_total {_number(total(_FAILURES))}")
        head("mlrails_queue_requests", "gauge", "Requests that wait or are being scored.")
        lines.append(f"mlrails_queue_requests {_number(total(_QUEUE))}")
        head("mlrails_in_flight_requests", "gauge", "Prediction requests not yet answered.")
        lines.append(f"mlrails_in_flight_requests {_number(total(_IN_FLIGHT))}")
        head("mlrails_workers", "gauge", "Worker processes.")
        lines.append(f"mlrails_workers {self._board.workers}")
        head("mlrails_model_info", "gauge", "The served project.")
        labels = {"name": self._service.name, "version": self._service.version or ""}
        labels["run"] = (self._service.document.get("run") or {}).get("id") or ""
        lines.append("mlrails_model_info{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "} 1")
        return "\n".join(lines) + "\n"


def _observe(cells, base, bounds, value):
    # Buckets are kept apart and summed when read: one addition here instead of up to thirteen.
    cells[base + bisect.bisect_left(bounds, value)] += 1.0
    cells[base + len(bounds) + 1] += value


def _number(value):
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value):
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
