"""The whole launcher: the shell script, a small application on the real uvicorn, and this test in systemd's place."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from manager import FakeManager

SCRIPT = Path(__file__).resolve().parents[2] / "handover/handover"
# PyPNM's part: decides the profile, calls uvicorn.run.
CLI = """
import os, sys, uvicorn
def main():
    profile = open(os.environ["PROFILE"]).read().split()
    workers, limit = int(profile[0]), int(profile[1])
    arguments = dict(app="small_app:app", host="127.0.0.1", port=int(os.environ["PORT"]), workers=workers,
                     timeout_keep_alive=120, log_level="info", access_log=False)
    if limit:
        arguments["limit_max_requests"] = limit
    if "--reload" in sys.argv or "reload" in profile:
        arguments["reload"] = True
    os.environ["ACTIVE_WORKERS"] = str(workers)
    print("deciding", workers, limit, flush=True)
    uvicorn.run(**arguments)
    return 0
"""
APP = """
import asyncio, os
if os.path.exists(os.environ["PROFILE"] + ".broken"):
    raise RuntimeError("broken")
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    body = ("%d %s" % (os.getpid(), os.environ["ACTIVE_WORKERS"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""


class Service(unittest.TestCase):
    """The service with its files in a directory; `start` runs it as systemd would."""

    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.place = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        for name, text in {
            "small_cli.py": CLI, "small_app.py": APP, "small-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1\n",
            "small-1.dist-info/entry_points.txt": "[console_scripts]\npypnm = small_cli:main\n",
            "bin/pypnm": f"#!{sys.executable}\nimport sys\nfrom small_cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n",
        }.items():  # fmt: skip
            path = self.place / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (self.place / "bin/pypnm").chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.systemd = self.stack.enter_context(FakeManager(f"@pypnm-handover-service-{os.getpid()}-{self.port}"))
        self.log = self.place / "log"
        self.profile(1, 0)

    def profile(self, workers, limit):
        (self.place / "profile").write_text(f"{workers} {limit}\n")

    def start(self, *flags, wait=True, **environment):
        """Starts the main process with what is in the store; waits until a worker serves."""
        kept = list(self.systemd.store.items())
        # The shell gives descriptors their places, and a process its own number.
        moved = " ".join(f"{3 + n}<&{fd}-" for n, (_, fd) in enumerate(kept) if fd != 3 + n)
        command = f"exec {moved} env LISTEN_PID=$$ {SCRIPT} pypnm serve {' '.join(flags)}"
        variables = {
            "PATH": f"{self.place}/bin:/usr/bin:/bin", "PYTHONPATH": str(self.place), "PROFILE": str(self.place / "profile"), "PORT": str(self.port),
            "NOTIFY_SOCKET": self.systemd.address, "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept),
            "PYTHONDONTWRITEBYTECODE": "1", **environment,
        }  # fmt: skip
        said = len(self.systemd.messages)
        with open(self.log, "ab") as log:
            process = subprocess.Popen(["bash", "-c", command], env=variables, pass_fds=[fd for _, fd in kept], stdout=log, stderr=log)
        self.stack.callback(self.end, process)
        if wait:
            self.systemd.wait(lambda messages: any("READY" in message for message in messages[said:]))
        return process

    def end(self, process):
        # Plain uvicorn's children do not end with their parent.
        children = self.children(process) if process.poll() is None else []
        process.kill()
        process.wait()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self, process, number=signal.SIGTERM, timeout=20):
        process.send_signal(number)
        return process.wait(timeout)

    def ask(self, path="/", connection=None):
        """The worker that answers and the number of workers that it knows of."""
        one = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        one.request("GET", path)
        pid, workers = one.getresponse().read().split()
        if connection is None:
            one.close()
        return int(pid), int(workers)

    def reload(self, process):
        said = len(self.systemd.messages)
        process.send_signal(signal.SIGHUP)
        self.systemd.wait(lambda messages: any("READY" in message for message in messages[said:]))

    def children(self, process):
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(pid) for pid in text.split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @contextlib.contextmanager
    def load(self, clients=4):
        """Clients that ask without a pause until the end of the block; none may fail."""
        stop, failures, answers = threading.Event(), [], []

        def client(keep_alive):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while not stop.is_set():
                try:
                    answers.append(self.ask("/slow" if len(answers) % 50 == 49 else "/", connection))
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))
                    connection.close()
                if not keep_alive:
                    connection.close()
                time.sleep(0.01)
            connection.close()

        threads = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(answers), 5)

    # What is lost without a hand-over

    def test_recycles_lose_nothing(self):
        self.profile(1, 80)
        process = self.start()
        with self.load() as answers:
            deadline = time.monotonic() + 30
            while len({pid for pid, _ in answers}) < 4 and time.monotonic() < deadline:
                time.sleep(0.1)
        self.assertGreaterEqual(len({pid for pid, _ in answers}), 4)
        self.assertEqual(self.stop(process), 0)

    def test_restarts_lose_nothing(self):
        process = self.start()
        with self.load():
            for wait in (True, False, True):
                self.assertIn(self.stop(process), (0, -signal.SIGTERM))
                process = self.start(wait=wait)
                time.sleep(0.4)

    def test_a_restart_in_the_middle_of_a_start_loses_nothing(self):
        process = self.start()
        with self.load():
            for step in range(6):
                self.stop(process)
                process = self.start(wait=False)
                time.sleep(0.15 * step)

    def test_a_reload_resizes_and_loses_nothing(self):
        process = self.start()
        with self.load() as answers:
            for workers in (3, 1):
                self.profile(workers, 0)
                self.reload(process)
                self.assertEqual(len(self.children(process)), workers)
                self.assertEqual(self.ask()[1], workers)
        self.assertEqual({workers for _, workers in answers}, {1, 3})
        self.assertIn("deciding 3 0", self.log.read_text())

    def test_the_control_plain_uvicorn_refuses(self):
        self.profile(1, 20)
        self.start(wait=False, PYPNM_HANDOVER="no")
        with self.assertRaises(OSError):
            deadline = time.monotonic() + 30
            began = False
            while time.monotonic() < deadline:
                try:
                    self.ask()
                    began = True
                except ConnectionRefusedError:
                    if began:
                        raise
                time.sleep(0.05)

    # Requests in hand

    def test_a_stop_finishes_a_slow_request_and_a_half_sent_one(self):
        process = self.start()
        slow = threading.Thread(target=lambda: answers.append(self.ask("/slow")))
        answers = []
        with socket.create_connection(("127.0.0.1", self.port)) as half:
            half.sendall(b"GET / HTTP/1.1\r\nHo")
            slow.start()
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(2)
            half.sendall(b"st: x\r\n\r\n")
            answer = half.recv(1000)
        slow.join()
        self.assertEqual(process.wait(10), 0)
        self.assertIn(b"200 OK", answer)
        self.assertIn(b"connection: close", answer)
        self.assertEqual(len(answers), 1)

    def test_the_last_answer_of_a_slow_request_says_that_it_is_the_last(self):
        process = self.start()
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(1.2)
            process.send_signal(signal.SIGTERM)
            answer = connection.recv(1000)
            self.assertIn(b"connection: close", answer)
        self.assertEqual(process.wait(10), 0)

    def test_an_idle_connection_does_not_hold_up_a_stop(self):
        process = self.start()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        self.ask(connection=connection)
        started = time.monotonic()
        self.assertEqual(self.stop(process), 0)
        self.assertLess(time.monotonic() - started, 4)

    # The socket

    def test_connections_wait_for_the_next_start(self):
        process = self.start()
        self.stop(process, signal.SIGKILL)
        with socket.create_connection(("127.0.0.1", self.port)) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.start()
            self.assertIn(b"200 OK", waiting.recv(1000))

    def test_another_port(self):
        process = self.start()
        old = self.port
        self.stop(process)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.start()
        self.ask()
        self.assertEqual(list(self.systemd.store), [f"pypnm-127.0.0.1-{self.port}"])
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old))

    def test_an_address_in_use_ends_the_start_with_a_line(self):
        with socket.create_server(("127.0.0.1", self.port)):
            process = self.start(wait=False)
            self.assertEqual(process.wait(20), 1)
        self.assertIn(f"cannot listen: 127.0.0.1:{self.port}: Address already in use", self.log.read_text())

    def test_children_get_neither_sockets_nor_systemds_variables(self):
        process = self.start()
        (worker,) = self.children(process)
        environment = Path(f"/proc/{worker}/environ").read_bytes()
        for name in (b"LISTEN_", b"NOTIFY_SOCKET"):
            self.assertNotIn(name, environment)

    # Workers that die

    def test_a_killed_worker_is_replaced(self):
        process = self.start()
        (worker,) = self.children(process)
        os.kill(worker, signal.SIGKILL)
        self.assertNotEqual(self.ask()[0], worker)
        self.assertIsNone(process.poll())
        self.assertIn(f"worker {worker} has ended (SIGKILL)", self.log.read_text())

    def test_a_killed_parent_leaves_no_worker(self):
        process = self.start()
        (worker,) = self.children(process)
        self.stop(process, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(Path(f"/proc/{worker}/exe").exists())

    def test_workers_that_die_at_their_start_end_the_service_with_status_3(self):
        (self.place / "profile.broken").touch()
        process = self.start(wait=False)
        self.assertEqual(process.wait(30), 3)
        self.assertEqual(self.log.read_text().count("has ended at its start"), 3)

    def test_successors_that_die_leave_the_old_worker(self):
        process = self.start()
        (old,) = self.children(process)
        (self.place / "profile.broken").touch()
        with self.load() as answers:
            self.reload(process)
            (self.place / "profile.broken").unlink()
            deadline = time.monotonic() + 30
            while {pid for pid, _ in answers} == {old} and time.monotonic() < deadline:
                time.sleep(0.1)
        self.assertEqual(len({pid for pid, _ in answers}), 2)

    # Signals and the profile

    def test_a_profile_that_cannot_be_read_changes_nothing(self):
        process = self.start()
        before = self.children(process)
        (self.place / "profile").write_text("many\n")
        self.reload(process)
        self.assertEqual(self.children(process), before)
        self.assertIn("PyPNM could not read its profile anew: ValueError", self.log.read_text())

    def test_sigterm_to_all_processes_is_a_stop(self):
        # KillMode=control-group, the default of a unit of one's own.
        process = self.start()
        slow = threading.Thread(target=lambda: answers.append(self.ask("/slow")))
        answers = []
        slow.start()
        time.sleep(0.3)
        for pid in self.children(process):
            os.kill(pid, signal.SIGTERM)
        self.assertEqual(self.stop(process), 0)
        slow.join()
        self.assertEqual(len(answers), 1)

    def test_systemd_hears_what_is_going_on(self):
        process = self.start()
        self.reload(process)
        self.stop(process)
        said = [message["STATUS"] for message in self.systemd.messages if "STATUS" in message]
        self.assertIn("1 of 1 workers serving", said)
        self.assertIn("1 of 1 workers serving, a successor is starting", said)
        self.assertEqual(said[-1], "Finishing the requests in hand")
        states = [next(iter(message)) for message in self.systemd.messages if "READY" in message or "RELOADING" in message or "STOPPING" in message]
        self.assertEqual(states, ["READY", "RELOADING", "READY", "STOPPING"])

    def test_numbers_that_are_no_profile(self):
        for workers, limit in ((0, 0), (-5, -5)):
            self.profile(workers, limit)
            process = self.start()
            self.ask()
            self.assertEqual(len(self.children(process)), 1)
            time.sleep(0.5)
            self.assertEqual(self.stop(process), 0)
        self.assertEqual(self.log.read_text().count("Started server process"), 2)

    def test_a_profile_that_is_never_read_to_its_end_changes_nothing(self):
        # The launcher's own patience, shortened.
        (self.place / "sitecustomize.py").write_text(
            "import signal\nreal = signal.setitimer\nsignal.setitimer = lambda which, seconds: real(which, min(seconds, 1.0))\n"
        )
        process = self.start()
        before = self.children(process)
        (self.place / "profile").unlink()
        os.mkfifo(self.place / "profile")
        self.reload(process)
        self.assertEqual(self.children(process), before)
        self.assertIn("PyPNM could not read its profile anew: TimeoutError: not done in 20 s", self.log.read_text())

    def test_what_pypnm_wants_at_a_reload_cannot_be_handed_over(self):
        process = self.start()
        before = self.children(process)
        (self.place / "profile").write_text("2 0 reload\n")
        self.reload(process)
        self.assertEqual(self.children(process), before)
        self.assertIn("could not read its profile anew: ValueError: --reload restarts the service itself", self.log.read_text())

    def test_many_reloads_at_once_and_one_during_a_stop(self):
        process = self.start()
        slow = threading.Thread(target=lambda: answers.append(self.ask("/slow")))
        answers = []
        with self.load():
            for _ in range(5):
                process.send_signal(signal.SIGHUP)
            self.reload(process)
        slow.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        said = self.log.read_text().count("renewing all workers")
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(20), 0)
        slow.join()
        self.assertEqual(len(answers), 1)
        self.assertEqual(self.log.read_text().count("renewing all workers"), said)

    def test_a_stop_while_a_successor_starts(self):
        process = self.start()
        for pause in (0.0, 0.1, 0.3):
            process.send_signal(signal.SIGHUP)
            time.sleep(pause)
            self.assertEqual(self.stop(process), 0)
            process = self.start()

    def test_without_stdin_stdout_and_stderr(self):
        self.profile(1, 20)
        process = self.start("0<&- 1>&- 2>&-")
        with self.load() as answers:
            deadline = time.monotonic() + 30
            while len({pid for pid, _ in answers}) < 2 and time.monotonic() < deadline:
                time.sleep(0.1)
        self.assertGreater(len({pid for pid, _ in answers}), 1)
        self.assertEqual(self.stop(process), 0)

    def test_without_a_service_manager(self):
        process = self.start(wait=False, NOTIFY_SOCKET="")
        deadline = time.monotonic() + 30
        while not self.children(process) or "startup complete" not in self.log.read_text():
            self.assertLess(time.monotonic(), deadline, self.log.read_text())
            time.sleep(0.1)
        (old,) = self.children(process)
        with self.load() as answers:
            process.send_signal(signal.SIGHUP)
            while {pid for pid, _ in answers} <= {old}:
                self.assertLess(time.monotonic(), deadline, self.log.read_text())
                time.sleep(0.1)
        self.assertEqual(self.stop(process), 0)

    # Plain PyPNM

    def plain(self, process, why):
        """Plain PyPNM serves, in a process that looks like it, and a line says why."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask()
                break
            except (ConnectionRefusedError, ConnectionResetError):
                # Reset: it waited in the queue of the socket that is given up.
                self.assertIsNone(process.poll(), self.log.read_text())
                self.assertLess(time.monotonic(), deadline, self.log.read_text())
                time.sleep(0.1)
        self.assertEqual(len(re.findall("^pypnm-handover: ", self.log.read_text(), re.MULTILINE)), 1, self.log.read_text())
        self.assertIn(f"pypnm-handover: {why}: starting plain pypnm, without hand-over", self.log.read_text())
        self.assertNotIn(b"pypnm_handover", Path(f"/proc/{process.pid}/cmdline").read_bytes())

    def test_turned_off_it_gives_up_the_kept_socket(self):
        self.stop(self.start())
        self.assertEqual(len(self.systemd.store), 1)
        self.plain(self.start(wait=False, PYPNM_HANDOVER="no"), "PYPNM_HANDOVER=no")
        self.assertEqual(self.systemd.store, {})

    def test_with_reload(self):
        self.plain(self.start("--reload", wait=False), "--reload restarts the service itself")

    def test_a_uvicorn_of_another_kind(self):
        # The same under another name.
        (self.place / "small_cli.py").write_text(
            "import uvicorn.server\nuvicorn.Server.tick = uvicorn.Server.on_tick\ndel uvicorn.Server.on_tick\n"
            "async def main_loop(self):\n    import asyncio\n    n = 0\n    while not await self.tick(n):\n        n += 1\n        await asyncio.sleep(0.1)\n"
            "uvicorn.Server.main_loop = main_loop\n" + CLI
        )
        self.plain(self.start(wait=False), "uvicorn.Server has no coroutine on_tick()")

    def test_a_pypnm_that_takes_the_function_by_its_name(self):
        (self.place / "small_cli.py").write_text(CLI.replace("sys, uvicorn", "sys\nfrom uvicorn import run").replace("uvicorn.run(", "run("))
        process = self.start()
        self.ask()
        self.assertEqual(len(self.children(process)), 1)
        self.assertEqual(self.stop(process), 0)

    def test_a_package_without_metadata(self):
        (self.place / "small-1.dist-info/entry_points.txt").unlink()
        self.plain(self.start(wait=False), "LookupError: no installed package has the command pypnm")
