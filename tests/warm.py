"""Processes that start in milliseconds: forked from one in which everything is imported, and nothing has run.

Starting Python and importing the package takes half a second of CPU time and more, and crash tests do it many times.
Such a process has its own session, environment and output, and can be killed as any other. Its workers start warm as
well, unless they have a mark to be found by. What is about the start itself needs `subprocess`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout
from io import StringIO
from multiprocessing import forkserver
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest

from featurestore.maintenance import sandboxed
from tests.faults import is_ordinary_user, ordinary_user
from tests.warm_workers import connected, fork_nursery, forking, serve

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "featurestore.api.store",
        "featurestore.cli.program",
        "featurestore.maintenance.rebuild",
        "featurestore.maintenance.verify",
        "featurestore.pipeline.extract_run",
        "featurestore.pipeline.fit_run",
        "featurestore.pipeline.runner",
        "featurestore.query.sql",
        "featurestore.query.status",
        *(f"PIL.{form}ImagePlugin" for form in ("Bmp", "Gif", "Jpeg", "Png", "Ppm")),  # what `PIL.Image.open` imports
        "cv2",
        "duckdb",
        "joblib.externals.loky",
        "joblib.externals.loky.backend.synchronize",
        "pandas",  # pyarrow imports it
        "pytest",  # since it is the main program that starts these processes
        "sklearn.decomposition",
        "tests.warm_workers",
        "tomlkit",
        "tests.frozen",  # last
    ]
)


MARK = "FEATURESTORE_TEST_MARK"  # a variable that workers inherit, by which they can be told from everybody else's


def start_server() -> None:
    """Start the process from which others are forked now, with the rights that this one has now."""
    forkserver.ensure_running()


class WarmProcess:
    """``python -m MODULE ARGUMENTS``."""

    def __init__(self, module: str, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> None:
        """Start it."""
        pipes = [os.pipe(), os.pipe()]
        ends = [DupFd(writing) for _, writing in pipes]
        self._process = CONTEXT.Process(
            target=run_module, args=(module, list(arguments), cwd, dict(environment), ends, is_ordinary_user())
        )
        self._process.start()
        for _, writing in pipes:
            os.close(writing)
        pool = ThreadPoolExecutor(len(pipes))
        self._outputs = [pool.submit(read_all, reading) for reading, _ in pipes]
        assert self._process.pid is not None
        self.pid = self._process.pid

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def finish(self, timeout: float) -> tuple[int, str, str]:
        """Wait until it has ended, with all that still write for it, and return its exit code, output and errors.

        Raises:
            TimeoutError: it still runs.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} still runs")
        out, err = (output.result(timeout) for output in self._outputs)
        return self._process.exitcode, out, err


PATIENCE = 300.0  # seconds after which a process that should have ended is taken to hang


def run_warm(
    module: str, *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m MODULE ARGUMENTS`` to its end."""
    texts = [str(argument) for argument in arguments]
    process = WarmProcess(module, texts, cwd=cwd or Path.cwd(), environment=environment)
    try:
        code, out, err = process.finish(PATIENCE)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess([module, *texts], code, out, err)


PROGRAM = """#!{python} -IS
import json, os, socket, sys

with socket.create_connection(("127.0.0.1", {port})) as asked:
    asked.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    asked.shutdown(socket.SHUT_WR)
    code, out, err = json.loads(asked.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@contextmanager
def warm_program(folder: Path) -> Iterator[Path]:
    """Put the program ``featurestore`` into a new folder, for scripts: a process that starts warm does its work."""
    folder.mkdir()
    with socketserver.TCPServer(("127.0.0.1", 0), AskedToRun) as server:
        program = folder / "featurestore"
        program.write_text(PROGRAM.format(python=sys.executable, port=server.server_address[1]), encoding="utf-8")
        program.chmod(0o755)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield folder
        finally:
            server.shutdown()
            thread.join()


class AskedToRun(socketserver.StreamRequestHandler):
    """A start of that program."""

    def handle(self) -> None:
        """Run it to its end, and tell what came of it."""
        arguments, folder, environment = json.load(self.rfile)
        done = run_warm("featurestore", *arguments, cwd=Path(folder), environment=environment)
        self.wfile.write(json.dumps([done.returncode, done.stdout, done.stderr]).encode())


class NearSandbox:
    """Stands in for ``subprocess`` in `featurestore.maintenance.sandbox`: its job is done here, without its limits."""

    @staticmethod
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        """Run ``python -P -m MODULE ARGUMENTS``."""
        with redirect_stdout(StringIO()) as out, pytest.MonkeyPatch.context() as patch:
            patch.setattr("resource.setrlimit", lambda *_: None)
            code = sandboxed.main(command[4:])
        return subprocess.CompletedProcess(command, code, out.getvalue().encode(), b"")


def read_all(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def run_module(
    module: str, arguments: list[str], cwd: Path, environment: dict[str, str], outputs: list[Any], ordinary: bool
) -> None:
    """Be the new process: take its environment, its streams and its rights, then run the module as the program."""
    os.setsid()
    # The start of a worker blocks signals, and may have started the process that this one is forked from.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    for stream, output in enumerate(outputs, start=1):
        descriptor = output.detach()
        os.dup2(descriptor, stream)
        os.close(descriptor)
    sys.argv = [module, *arguments]
    with (
        nullcontext() if environment.get(MARK) else forking(fork_nursery()),
        ordinary_user() if ordinary else nullcontext(),
    ):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def connect_nursery() -> socket.socket:
    """Start a process that forks workers for this one, which has threads."""
    here, there = connected()
    CONTEXT.Process(target=serve_below, args=(DupFd(there.fileno()),), daemon=True).start()
    there.close()
    return here


def serve_below(connection: Any) -> None:
    serve(socket.socket(fileno=connection.detach()))
