"""How fast a page answers: visitors who draw one picture after the other through the page's own queue.

t2i-demo --run_dir=R --requests_per_minute=100000
python experiments/demo_latency.py http://localhost:7860 [visitors, 4] [seconds, 60]
"""

import json
import sys
import threading
import time

import numpy as np
from gradio_client import Client

CAPTION = "this flower has five round red petals and a yellow center"


class Visitor(threading.Thread):
    """Asks, waits for the answer, asks again."""

    def __init__(self, url, number, until):
        super().__init__()
        self.client, self.number, self.until = Client(url, verbose=False, analytics_enabled=False), number, until
        self.sent, self.times = 0, []

    def run(self):
        while time.perf_counter() < self.until:
            seed, began = 10_000 * self.number + self.sent, time.perf_counter()
            self.sent += 1
            _, result, _ = self.client.predict(CAPTION, seed, 1.0, api_name="/draw")
            if f"Seed {seed}," in result:  # a message, or another's picture, is no answer
                self.times.append(time.perf_counter() - began)


def main(url, visitors=4, seconds=60.0):
    Client(url, verbose=False, analytics_enabled=False).predict(CAPTION, 0, 1.0, api_name="/draw")
    people = [Visitor(url, number, 0.0) for number in range(int(visitors))]
    began = time.perf_counter()
    for visitor in people:
        visitor.until = began + float(seconds)
        visitor.start()
    for visitor in people:
        visitor.join()
    times = [1000 * seconds for visitor in people for seconds in visitor.times]
    sent, wall = sum(visitor.sent for visitor in people), time.perf_counter() - began
    p50, p99 = np.percentile(times, [50, 99])
    found = {"visitors": len(people), "seconds": wall, "sent": sent, "answered": len(times)}
    print(json.dumps({**found, "p50_ms": p50, "p99_ms": p99, "slowest_ms": max(times)}, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
