"""What the service of lessons 08, 11 and 12 bears: `python benchmarks/service.py`, about three minutes on two cores.

    predictions a second    eight clients, one image a request, in a process of their own and in the server's (as in a notebook)
    memory                  of the serving process over 20,000 requests
    limit                   eight clients together ask for twice what it allows: how much too much or too little is answered
"""
import argparse
import multiprocessing
import os
import threading
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlsec_lab  # noqa: E402, F401  (first, for its settings of memory and threads)
import psutil  # noqa: E402
import torch  # noqa: E402

from mlsec_lab.victims import load_data, load_model  # noqa: E402
from mlsec_lab.victims.client import RateLimited, RemoteModel  # noqa: E402
from mlsec_lab.victims.clock import Clock  # noqa: E402
from mlsec_lab.victims.service import serve  # noqa: E402

CLIENTS = 8


def ask(url, requests):
    """Send so many requests of one image, from eight threads: (seconds, how many were answered)."""
    x, answered = load_data("signs", "test", n=64)[0], []

    def run(number):
        remote = RemoteModel(url)
        ready.wait()
        for request in range(requests // CLIENTS):
            try:
                remote(x[(number + request) % 64][None])
            except RateLimited:
                pass
        answered.append(remote.queries)
        remote.close()

    ready = threading.Barrier(CLIENTS + 1)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, sum(answered)


def elsewhere(url, requests):
    """The same from another process, so that the clients do not share Python's lock with the server."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(ask, (url, requests))


def megabytes():
    return psutil.Process().memory_info().rss / 1e6


def main(requests, rounds):
    model, classes = load_model("signs_cnn"), load_data("signs", "test", n=1)[2]
    torch.set_num_threads(1)
    print("predictions a second, 8 clients, signs_cnn")
    for where, run in (("clients in another process", elsewhere), ("clients in this process", ask)):
        with serve(model, classes) as service:
            rates = []
            for _ in range(rounds):
                seconds, answered = run(service.url, requests // 10)
                rates.append(answered / seconds)
            print(f"  {where:28}" + "".join(f"{rate:8.0f}" for rate in rates), flush=True)
    print(f"memory of the serving process over {requests:,} requests, 100,000 an hour, with an audit log")
    with serve(model, classes, limit="100000/hour", log_file=os.devnull) as service:
        for _ in range(10):
            elsewhere(service.url, requests // 10)
            print(f"  {sum(record.images for record in service.log):8,} answered {megabytes():8.1f} MB", flush=True)
    print("limit: answered above it, over rounds of 8 clients who ask for twice as much")
    above = []
    for _ in range(rounds):
        with serve(model, classes, limit="500/hour", clock=Clock()) as service:
            above.append(elsewhere(service.url, 1000)[1] - 500)
    print("  " + "".join(f"{value:8}" for value in above))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.requests, arguments.rounds)
