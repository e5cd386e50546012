"""How fast a page answers: visitors who draw one picture after the other through the page's own queue.

t2i-demo --run_dir=R --requests_per_minute=100000
python experiments/demo_latency.py http://localhost:7860
"""

import argparse
import json
import threading
import time

CAPTION = "this flower has five round red petals and a yellow center"


def connected(url):
    from gradio_client import Client  # here, so that --help does not wait for it

    return Client(url, verbose=False, analytics_enabled=False)


class Visitor(threading.Thread):
    """Asks, waits for the answer, asks again."""

    def __init__(self, url, number, until):
        super().__init__()
        self.client, self.number, self.until = connected(url), number, until
        self.sent, self.times = 0, []

    def run(self):
        while time.perf_counter() < self.until:
            seed, began = 10_000 * self.number + self.sent, time.perf_counter()
            self.sent += 1
            _, result, _ = self.client.predict(CAPTION, seed, 1.0, api_name="/draw")
            if f"Seed {seed}," in result:  # a message, or another's picture, is no answer
                self.times.append(time.perf_counter() - began)


def main(url, visitors, seconds):
    import numpy as np

    connected(url).predict(CAPTION, 0, 1.0, api_name="/draw")
    people = [Visitor(url, number, 0.0) for number in range(visitors)]
    began = time.perf_counter()
    for visitor in people:
        visitor.until = began + seconds
        visitor.start()
    for visitor in people:
        visitor.join()
    times = [1000 * seconds for visitor in people for seconds in visitor.times]
    sent, wall = sum(visitor.sent for visitor in people), time.perf_counter() - began
    p50, p99 = np.percentile(times, [50, 99])
    found = {"visitors": len(people), "seconds": wall, "sent": sent, "answered": len(times)}
    print(json.dumps({**found, "p50_ms": p50, "p99_ms": p99, "slowest_ms": max(times)}, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--visitors", type=int, default=4, help="at once (default: 4)")
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    main(**vars(parser.parse_args()))
