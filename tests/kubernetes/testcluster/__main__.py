"""Clusters to play with: `python -m testcluster [NAME...] [--gpu N] [--cpu N] [--edge N] [--real]`.

Starts one simulated cluster for each name, prints how to reach it, and stops all when its standard
input ends or at Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from testcluster.build import ensure_parts
from testcluster.cluster import Cluster
from testcluster.node.able import why_no_node
from testcluster.nodes import CPU, EDGE, GPU


async def _serve(options: argparse.Namespace, folder: Path) -> None:
    if options.real and (reason := why_no_node()):
        raise SystemExit(f"a real node cannot be had here: {reason}")
    parts = ensure_parts()
    clusters = [Cluster(name, parts, folder / name) for name in options.names or ["test"]]
    try:
        for cluster in clusters:
            started = time.monotonic()
            await cluster.start()
            for kind, count in ((GPU, options.gpu), (CPU, options.cpu), (EDGE, options.edge)):
                if count:
                    await cluster.add(kind, count)
            if options.real:
                alone = not (options.gpu or options.cpu or options.edge)
                labels = {"node.kubernetes.io/instance-type": "real"}
                await cluster.add_real_node("real-0", labels, taken=alone)
            seconds = time.monotonic() - started
            print(
                f"{cluster.name}: {seconds:.1f} s; export KUBECONFIG={cluster.kubeconfig}",
                flush=True,
            )
        await asyncio.to_thread(sys.stdin.read)
    finally:
        for cluster in clusters:
            cluster.stop()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of the clusters (one: test)")
    for kind in ("gpu", "cpu", "edge"):
        parser.add_argument(f"--{kind}", type=int, default=2, help=f"how many {kind} nodes")
    parser.add_argument(
        "--real", action="store_true", help="add a real node; without others it takes all pods"
    )
    with tempfile.TemporaryDirectory(prefix="cairn-kubernetes-") as folder:
        asyncio.run(_serve(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    _main()
