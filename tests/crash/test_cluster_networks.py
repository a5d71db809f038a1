"""A cluster whose hosts have addresses of their own: network namespaces of this machine, with a bridge between them.

It takes root, and a minute, so that only `make crash` runs it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import cluster_of_processes
from tests.crash.conftest import Ground
from tests.crash.harness import finish, start
from tests.crash.test_cluster_hosts import TTL, refuse_difference, wait_for_workers
from tests.crash.test_cluster_kills import in_crash, verb, wait_for

pytestmark = [pytest.mark.cluster, in_crash]


@dataclass(frozen=True)
class Network:
    """Hosts on one network.

    Args:
        address: of this host.
        hosts: the addresses of the others, by the names of their namespaces.
    """

    address: str
    hosts: dict[str, str]

    def plug(self, name: str, *, there: bool) -> None:
        """Pull out the cable of a host, or put it back."""
        ip("link", "set", f"{name}p", "up" if there else "down")


def ip(*arguments: str) -> None:
    """Run ``ip``.

    Raises:
        CalledProcessError: it has failed.
    """
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def network(n: int) -> Iterator[Network]:
    """Yield a network with so many other hosts; skip the test if this user may not make one."""
    own, net = f"fs{os.getpid() % 100000}", f"10.213.{os.getpid() % 250}"
    hosts = {f"{own}h{i}": f"{net}.{i + 2}" for i in range(n)}
    try:
        try:
            ip("link", "add", own, "type", "bridge")
            ip("addr", "add", f"{net}.1/24", "dev", own)
            ip("link", "set", own, "up")
            for name, address in hosts.items():
                ip("netns", "add", name)
                ip("link", "add", f"{name}p", "type", "veth", "peer", "name", "eth0", "netns", name)
                ip("link", "set", f"{name}p", "master", own, "up")
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this user may not make network namespaces: {error}")
        yield Network(f"{net}.1", hosts)
    finally:
        for command in (*(("netns", "del", name) for name in hosts), ("link", "del", own)):
            subprocess.run(["ip", *command], check=False, capture_output=True)


def test_a_host_that_loses_its_network_costs_nothing(ground: Ground, tmp_path: Path) -> None:
    store = ground.store(tmp_path / "store")
    with (
        network(2) as net,
        cluster_of_processes(tmp_path / "cluster", n_workers=0, host=net.address, **TTL) as cluster,
    ):
        workers = {name: cluster.start_worker(within=["ip", "netns", "exec", name]) for name in net.hosts}
        wait_for_workers(cluster, 2)
        process = start(*verb(cluster, store))
        lost = next(iter(net.hosts))
        wait_for(store, "blocks/extract/*/*/*.parquet")
        net.plug(lost, there=False)
        ended = finish(process)
        assert (ended.code, ended.err) == (0, ""), cluster.logs()
        refuse_difference(store, ground)
        net.plug(lost, there=True)
        workers[lost].wait(120)  # the scheduler no longer knows it
        refuse_difference(store, ground)
        assert all(f"tcp://{address}:" in cluster.logs() for address in net.hosts.values())
