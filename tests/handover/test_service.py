"""Tests of the complete launcher: the shell script, a small application with the real uvicorn, and this test instead of systemd."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
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
import json, os, sys, uvicorn
def main():
    profile = open(os.environ["PROFILE"]).read().split()
    workers, limit = int(profile[0]), int(profile[1])
    arguments = dict(app="small_app:app", host="127.0.0.1", port=int(os.environ["PORT"]), workers=workers,
                     timeout_keep_alive=120, log_level="info", access_log=False)
    arguments.update(json.loads(os.environ.get("ARGUMENTS", "{}")))
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
import asyncio, os, subprocess, time
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
    if scope["path"] == "/fork" and os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    if scope["path"] == "/program":
        # As os.system() starts programs, in the background.
        subprocess.Popen(["sleep", "60"], close_fds=False)
    body = ("%d %s" % (os.getpid(), os.environ["ACTIVE_WORKERS"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
"""


class Connection(http.client.HTTPConnection):
    """A connection to a service with any kind of socket."""

    def __init__(self, service):
        super().__init__("localhost")
        self.service = service

    def connect(self):
        self.sock = self.service.connect()


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
        self.address = socket.AF_INET, ("127.0.0.1", self.port)
        self.profile(1, 0)

    def profile(self, workers, limit):
        (self.place / "profile").write_text(f"{workers} {limit}\n")

    def start(self, *flags, wait=True, shell="", **environment):
        """Starts the main process with the stored descriptors, and waits until a worker serves."""
        kept = list(self.systemd.store.items())
        # The shell gives descriptors their places, and a process its own number.
        moved = " ".join(f"{3 + n}<&{fd}-" for n, (_, fd) in enumerate(kept) if fd != 3 + n)
        command = f"exec {moved} env LISTEN_PID=$$ {shell} {SCRIPT} pypnm serve {' '.join(flags)}"
        variables = {
            "PATH": f"{self.place}/bin:/usr/bin:/bin", "PYTHONPATH": str(self.place), "PROFILE": str(self.place / "profile"), "PORT": str(self.port),
            "NOTIFY_SOCKET": self.systemd.address, "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept),
            "PYTHONDONTWRITEBYTECODE": "1", **environment,
        }  # fmt: skip
        seen = len(self.systemd.messages)
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                ["bash", "-c", command], env=variables, pass_fds=[fd for _, fd in kept], stdout=log, stderr=log, start_new_session=True
            )
        self.stack.callback(self.end, process)
        if wait:
            self.systemd.wait(lambda messages: any("READY" in message for message in messages[seen:]))
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

    def connection(self):
        """A connection to the service, opened at the first request."""
        return Connection(self)

    def connect(self):
        """A socket that is connected to the service."""
        family, address = self.address
        connected = socket.socket(family, socket.SOCK_STREAM)
        connected.settimeout(30)
        try:
            connected.connect(address)
        except BaseException:
            connected.close()
            raise
        return connected

    def ask(self, path="/", connection=None):
        """The worker that answers and the number of workers that it knows of."""
        used = connection or self.connection()
        used.request("GET", path)
        pid, workers = used.getresponse().read().split()
        if connection is None:
            used.close()
        return int(pid), int(workers)

    def reload(self, process):
        seen = len(self.systemd.messages)
        process.send_signal(signal.SIGHUP)
        self.systemd.wait(lambda messages: any("READY" in message for message in messages[seen:]))

    def reload_by_systemd(self, process):
        """Reloads as ExecReload= does; returns the status and the output."""
        environment = {"PATH": "/usr/bin:/bin", "MAINPID": str(process.pid)}
        done = subprocess.run([SCRIPT, "--reload"], env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    def children(self, process):
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(pid) for pid in text.split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @contextlib.contextmanager
    def load(self, clients=4):
        """Clients that send requests without a pause until the end of the block; none may fail."""
        stop, failures, answers = threading.Event(), [], []

        def client(keep_alive):
            connection = self.connection()
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
            deadline = time.monotonic() + 60
            while len(answers) <= 5 and not failures and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(answers), 5)

    # What is lost without a handover

    def test_recycles_lose_nothing(self):
        self.profile(1, 80)
        process = self.start()
        with self.load() as answers:
            deadline = time.monotonic() + 30
            while len({pid for pid, _ in answers}) < 4 and time.monotonic() < deadline:
                time.sleep(0.1)
        self.assertGreaterEqual(len({pid for pid, _ in answers}), 4)
        # Those that have ended are reaped: a worker, perhaps its successor and predecessor, and the resource tracker are left.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self.assertLessEqual(len(children), 3, self.log.read_text())
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
        self.address = socket.AF_INET, ("127.0.0.1", self.port)
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

    def arguments(self, **arguments):
        """The environment that makes PyPNM pass these to uvicorn."""
        return {"ARGUMENTS": json.dumps(arguments)}

    def test_a_socket_file(self):
        file = str(self.place / "pypnm.sock")
        self.address = socket.AF_UNIX, file
        self.profile(1, 40)
        process = self.start(**self.arguments(uds=file))
        with self.load() as answers:
            self.stop(process)
            process = self.start(**self.arguments(uds=file))
            deadline = time.monotonic() + 30
            while len({pid for pid, _ in answers}) < 3 and time.monotonic() < deadline:
                time.sleep(0.1)
        self.assertGreaterEqual(len({pid for pid, _ in answers}), 3)
        self.assertEqual(list(self.systemd.store), ["pypnm-" + file])
        # From there to an address of another family.
        self.stop(process)
        self.address = socket.AF_INET, ("127.0.0.1", self.port)
        self.start()
        self.ask()
        self.assertEqual(list(self.systemd.store), [f"pypnm-127.0.0.1-{self.port}"])

    def test_the_number_of_a_descriptor(self):
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            self.systemd.store["somebody-elses"] = os.dup(listener.fileno())
            self.profile(2, 40)
            process = self.start(**self.arguments(fd=3))
            with self.load():
                process.send_signal(signal.SIGHUP)
                time.sleep(1)
            self.stop(process)

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no IPv6")
    def test_hosts_of_both_families(self):
        everywhere = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
        for host, kept, reached in (
            ("::", ["pypnm-..-{}"], everywhere),
            ("::1", ["pypnm-..1-{}"], everywhere[1:]),
            ("0.0.0.0", ["pypnm-0.0.0.0-{}"], everywhere[:1]),
            ("", ["pypnm-..-{}", "pypnm-0.0.0.0-{}"], everywhere),
        ):
            with self.subTest(host=host):
                # As a restart with another host, on the same port.
                process = self.start(**self.arguments(host=host))
                self.assertEqual(sorted(self.systemd.store), [name.format(self.port) for name in kept])
                for family, address in everywhere:
                    self.address = family, (address, self.port)
                    if (family, address) in reached:
                        self.ask()
                    else:
                        with self.assertRaises(ConnectionRefusedError):
                            self.ask()
                self.stop(process)

    def test_the_sockets_of_a_socket_unit(self):
        # An address, a file and an abstract name.
        name = b"\0pypnm-%d" % self.port
        addresses = [self.address, (socket.AF_UNIX, str(self.place / "unit.sock")), (socket.AF_UNIX, name)]
        for number, (family, address) in enumerate(addresses):
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.bind(address)
                listener.listen()
                self.systemd.store[f"pypnm.socket{number}"] = os.dup(listener.fileno())
        # What a server over streams cannot use.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as packets:
            packets.bind(str(self.place / "packets"))
            packets.listen()
            self.systemd.store["packets"] = os.dup(packets.fileno())
        process = self.start(**self.arguments(port=1))
        seen = f"listening on the sockets of the socket unit: 127.0.0.1:{self.port}, {self.place}/unit.sock, @pypnm-{self.port}\n"
        self.assertIn(seen, self.log.read_text())
        for self.address in addresses:
            with self.load(2):
                self.stop(process)
                process = self.start(**self.arguments(port=1))
        # Nothing is stored: the socket unit keeps them.
        self.assertEqual([name for name in self.systemd.store if name.startswith("pypnm-")], [])

    def test_what_others_have_stored(self):
        # Without a name: the one that has the address is used, however many there are.
        unnamed = [socket.create_server(("127.0.0.1", port)) for port in (0, self.port)]
        many = [socket.create_server(("127.0.0.1", 0)) for _ in range(70)]
        for listener, name in [(unnamed[1], "stored"), *((listener, f"pypnm-{number}") for number, listener in enumerate(many))]:
            self.systemd.store[name] = os.dup(listener.fileno())
        for listener in unnamed + many:
            listener.close()
        self.start()
        self.ask()
        self.assertEqual(set(self.systemd.store), {"stored", f"pypnm-127.0.0.1-{self.port}"})
        self.assertLessEqual(sum("BARRIER" in message for message in self.systemd.messages), 2)

    def test_children_get_neither_sockets_nor_systemds_variables(self):
        process = self.start()
        (worker,) = self.children(process)
        environment = Path(f"/proc/{worker}/environ").read_bytes()
        for name in (b"LISTEN_", b"NOTIFY_SOCKET"):
            self.assertNotIn(name, environment)

    # TLS

    def test_a_key_with_a_passphrase(self):
        files = {"ssl_keyfile": str(self.place / "key"), "ssl_certfile": str(self.place / "certificate")}
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 1 -subj /CN=localhost -passout pass:secret"
        names = ["-keyout", files["ssl_keyfile"], "-out", files["ssl_certfile"]]
        subprocess.run([*command.split(), *names], check=True, stderr=subprocess.DEVNULL)
        process = self.start(**self.arguments(**files, ssl_keyfile_password="secret"))
        context = ssl.create_default_context(cafile=files["ssl_certfile"])
        connect = self.connect
        self.connect = lambda: context.wrap_socket(connect(), server_hostname="localhost")
        old, _ = self.ask()
        self.reload(process)
        self.assertNotEqual(self.ask()[0], old)
        self.stop(process)
        # Without it, and without a terminal to ask for it on, nothing can be served; the log says why.
        process = self.start(wait=False, **self.arguments(**files))
        self.assertEqual(process.wait(30), 3)
        self.assertIn("Enter PEM pass phrase:", self.log.read_text())

    # Workers that die

    def test_a_killed_worker_whose_own_processes_live_on_is_replaced(self):
        process = self.start()
        (worker,) = self.children(process)
        for path in ("/fork", "/program"):
            (worker,) = self.children(process)
            self.assertEqual(self.ask(path)[0], worker)
            os.kill(worker, signal.SIGKILL)
            # The connection that a forked process has in common with the worker is not at its end.
            self.assertNotEqual(self.ask()[0], worker)
        started = time.monotonic()
        self.assertEqual(self.stop(process), 0)
        self.assertLess(time.monotonic() - started, 10)

    def test_programs_that_a_worker_starts_get_no_descriptors(self):
        process = self.start()
        self.ask("/program")
        (worker,) = self.children(process)
        (sleep,) = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
        self.addCleanup(os.kill, int(sleep), signal.SIGKILL)
        until = time.monotonic() + 10
        # While it starts, the dynamic linker opens libraries.
        while (descriptors := sorted(os.listdir(f"/proc/{sleep}/fd"))) != ["0", "1", "2"] and time.monotonic() < until:
            time.sleep(0.02)
        self.assertEqual(descriptors, ["0", "1", "2"])

    def test_with_sigchld_ignored(self):
        # dash, but not bash, which is /bin/sh on other systems, sets it back.
        process = self.start(
            shell='python3 -c \'import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp("bash", ["bash", *sys.argv[1:]])\''
        )
        old, _ = self.ask()
        self.reload(process)
        new, _ = self.ask()
        self.assertNotEqual(new, old)
        os.kill(new, signal.SIGKILL)
        self.assertNotIn(self.ask()[0], (old, new))
        self.assertEqual(self.stop(process), 0)

    def test_an_error_of_the_launcher_ends_the_service(self):
        (self.place / "sitecustomize.py").write_text(
            "import multiprocessing.connection as c, os\nreal = c.wait\ndef wait(*a):\n    if os.path.exists(os.environ['PROFILE'] + '.error'):\n"
            "        raise RuntimeError('unexpected')\n    return real(*a)\nc.wait = wait\n"
        )
        process = self.start()
        (worker,) = self.children(process)
        (self.place / "profile.error").touch()
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(20), 1)
        self.assertIn("RuntimeError: unexpected", self.log.read_text())
        self.gone(worker)

    def test_a_killed_worker_is_replaced(self):
        process = self.start()
        (worker,) = self.children(process)
        os.kill(worker, signal.SIGKILL)
        self.assertNotEqual(self.ask()[0], worker)
        self.assertIsNone(process.poll())
        self.assertIn(f"worker {worker} ended unexpectedly (SIGKILL)", self.log.read_text())

    def test_a_killed_parent_leaves_no_worker(self):
        process = self.start()
        (worker,) = self.children(process)
        self.stop(process, signal.SIGKILL)
        self.gone(worker)

    def gone(self, pid):
        """Waits for the end of a process."""
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}/exe") and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(os.path.exists(f"/proc/{pid}/exe"))

    def test_workers_that_die_at_their_start_end_the_service_with_status_3(self):
        (self.place / "profile.broken").touch()
        process = self.start(wait=False)
        self.assertEqual(process.wait(30), 3)
        self.assertEqual(self.log.read_text().count("failed to start ("), 3)

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
        self.assertIn("PyPNM could not reload its profile: ValueError", self.log.read_text())

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
        seen = [message["STATUS"] for message in self.systemd.messages if "STATUS" in message]
        self.assertIn("1 of 1 worker serving", seen)
        self.assertIn("1 of 1 worker serving, starting a successor", seen)
        self.assertEqual(seen[-1], "Finishing the requests in progress")
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
        self.assertIn("PyPNM could not reload its profile: TimeoutError: not done in 20 s", self.log.read_text())

    def test_what_pypnm_wants_at_a_reload_cannot_be_handed_over(self):
        process = self.start()
        before = self.children(process)
        (self.place / "profile").write_text("2 0 reload\n")
        self.reload(process)
        self.assertEqual(self.children(process), before)
        # Later workers know of the profile that counts, not of the one that PyPNM has named in vain.
        os.kill(before[0], signal.SIGKILL)
        self.assertEqual(self.ask()[1], 1)
        self.assertIn("could not reload its profile: ValueError: --reload restarts the service itself", self.log.read_text())

    def test_a_stop_while_the_profile_is_read(self):
        process = self.start()
        (self.place / "profile").unlink()
        os.mkfifo(self.place / "profile")
        process.send_signal(signal.SIGHUP)
        self.systemd.wait(lambda messages: any("RELOADING" in message for message in messages))
        time.sleep(0.3)
        started = time.monotonic()
        self.assertEqual(self.stop(process), 0)
        self.assertLess(time.monotonic() - started, 5)

    def test_a_reload_at_the_start(self):
        process = self.start(wait=False)
        self.assertEqual(self.reload_by_systemd(process), (0, ""))
        self.assertEqual(self.ask()[1], 1)

    def test_a_reload_that_changes_nothing_fails(self):
        process = self.start()
        (self.place / "profile").write_text("many\n")
        self.assertEqual(self.reload_by_systemd(process)[0], 1)
        self.profile(1, 0)
        self.assertEqual(self.reload_by_systemd(process)[0], 0)
        (self.place / "profile.broken").touch()
        self.assertEqual(self.reload_by_systemd(process)[0], 1)
        self.ask()
        # What failed before it was repaired counts no more.
        (self.place / "profile.broken").unlink()
        started = time.monotonic()
        self.assertEqual(self.reload_by_systemd(process)[0], 0)
        self.assertLess(time.monotonic() - started, 20)

    def test_a_reload_before_the_first_worker_serves(self):
        # PyPNM takes its time between reading the profile and calling uvicorn.
        (self.place / "small_cli.py").write_text(CLI.replace("    uvicorn.run(", "    import time; time.sleep(1)\n    uvicorn.run("))
        process = self.start(wait=False)
        while "deciding" not in self.log.read_text():
            time.sleep(0.01)
        self.profile(1, 77)
        self.reload(process)
        self.ask()
        self.assertIn("replacing all workers: 1 worker, recycled after 77 requests", self.log.read_text())
        deadline = time.monotonic() + 20
        while Path(f"/proc/{process.pid}/comm").read_text() != "handover/1\n":
            self.assertLess(time.monotonic(), deadline, "the reload does not end")
            time.sleep(0.05)

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
        seen = self.log.read_text().count("replacing all workers")
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(20), 0)
        slow.join()
        self.assertEqual(len(answers), 1)
        self.assertEqual(self.log.read_text().count("replacing all workers"), seen)

    def test_a_stop_while_a_successor_starts(self):
        process = self.start()
        for pause in (0.0, 0.1, 0.3):
            process.send_signal(signal.SIGHUP)
            time.sleep(pause)
            self.assertEqual(self.stop(process), 0)
            process = self.start()

    def test_variables_of_uvicorn_and_python(self):
        process = self.start(
            WEB_CONCURRENCY="7", UVICORN_WORKERS="7", UVICORN_LIMIT_MAX_REQUESTS="1", PYTHONSAFEPATH="1", PYTHONOPTIMIZE="2",
            PYTHONNOUSERSITE="1", MAINPID="1", LISTEN_PIDFDID="9", WATCHDOG_USEC="1000000",
        )  # fmt: skip
        with self.load():
            self.assertEqual(len(self.children(process)), 1)
            self.reload(process)
        self.assertEqual(self.stop(process), 0)

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
        self.assertIn(f"pypnm-handover: {why}: starting plain pypnm, without handover", self.log.read_text())
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
