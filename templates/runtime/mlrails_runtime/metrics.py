"""Counters and histograms of all workers, and the Prometheus text (exposition format 0.0.4) of `/metrics`.

Each number is a cell of the board, so counting is one addition and a scrape of any worker tells of all.
"""

from __future__ import annotations

import bisect
import os

from mlrails_runtime.decode import ABSENT

ROUTES = ("/predict", "/v1", "/v2", "/invocations", "other")
STATUSES = (200, 400, 401, 404, 405, 408, 413, 415, 422, 499, 500, 503)
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
_HELD = _FAILURES + 1
_IGNORED = _HELD + 1
_UNSEEN = _IGNORED + 1


def cells(service):
    """How many each worker has: the same for all services, and one per column of words."""
    return _UNSEEN + len(_watched(service))


def _watched(service):
    """(place, column) of the columns whose words training recorded."""
    return [(at, column) for at, column in enumerate(service.columns) if column.categories and not column.closed and column.type == "string"]


class Metrics:
    """One worker's numbers; `text` is of all workers."""

    def __init__(self, slot, service):
        self._cells = slot.cells
        self._board = slot.board
        self._service = service
        self._columns = _watched(service)
        self._words = [(at, frozenset({*column.categories, None, ABSENT}), cell) for cell, (at, column) in enumerate(self._columns, _UNSEEN)]
        # What a worker that died had in flight ended with it.
        self._cells[_QUEUE] = self._cells[_IN_FLIGHT] = self._cells[_HELD] = 0.0
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

    def held(self, size):
        self._cells[_HELD] = size

    def failed(self):
        self._cells[_FAILURES] += 1.0

    def ignored(self):
        self._cells[_IGNORED] += 1.0

    def looked_at(self, rows):
        """Counts words that training never saw: they are allowed, and a sign of drift."""
        for at, known, cell in self._words:
            if not known.issuperset([row[at] for row in rows]):
                self._cells[cell] += sum(row[at] not in known for row in rows)

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
        head("mlrails_ignored_fields_total", "counter", "Requests that left an optional column out and had a name that is no column's.")
        lines.append(f"mlrails_ignored_fields_total {_number(total(_IGNORED))}")
        if self._columns:
            head("mlrails_unseen_categories_total", "counter", "Values that training never saw, by column of words.")
            for cell, (_, column) in enumerate(self._columns, _UNSEEN):
                lines.append(f'mlrails_unseen_categories_total{{column="{_escaped(column.name)}"}} {_number(total(cell))}')
        head("mlrails_queue_requests", "gauge", "Requests that wait or are being scored.")
        lines.append(f"mlrails_queue_requests {_number(total(_QUEUE))}")
        head("mlrails_in_flight_requests", "gauge", "Prediction requests not yet answered.")
        lines.append(f"mlrails_in_flight_requests {_number(total(_IN_FLIGHT))}")
        head("mlrails_body_bytes", "gauge", "Memory that bodies take which are coming or being answered.")
        lines.append(f"mlrails_body_bytes {_number(total(_HELD))}")
        head("mlrails_workers", "gauge", "Worker processes.")
        lines.append(f"mlrails_workers {self._board.workers}")
        head("mlrails_workers_ready", "gauge", "Worker processes that answer.")
        lines.append(f"mlrails_workers_ready {self._board.ready()}")
        head("mlrails_worker_restarts_total", "counter", "Worker processes that took the place of one that died.")
        lines.append(f"mlrails_worker_restarts_total {self._board.restarts()}")
        memory = [_resident(process) for process in self._board.processes()]
        head("process_resident_memory_bytes", "gauge", "Memory of all workers; pages that they share count in each.")
        lines.append(f"process_resident_memory_bytes {sum(memory)}")
        head("process_start_time_seconds", "gauge", "When the service started, in seconds since 1970.")
        lines.append(f"process_start_time_seconds {self._board.started:.3f}")
        head("mlrails_model_info", "gauge", "The served project.")
        labels = {"name": self._service.name, "version": self._service.version or ""}
        labels["run"] = (self._service.document.get("run") or {}).get("id") or ""
        lines.append("mlrails_model_info{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "} 1")
        return "\n".join(lines) + "\n"


def _resident(process):
    """Bytes by /proc; 0 where there is none, and for a process that has just ended."""
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _observe(cells, base, bounds, value):
    # Buckets are kept apart and summed when read: one addition here instead of up to thirteen.
    cells[base + bisect.bisect_left(bounds, value)] += 1.0
    cells[base + len(bounds) + 1] += value


def _number(value):
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value):
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
