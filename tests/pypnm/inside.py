"""Runs inside a root file system with the real PyPNM, with PyPNM's own Python; started by tests/pypnm/run.

One request on stdin, one answer on stdout, both JSON: {"do": NAME, …} is answered by the function of that name. Makes
no decisions: it queries PyPNM and returns the results.
"""

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BIN = Path(sys.executable).parent


def table(points):
    """PyPNM's own profile for each (CPUs, GiB), and the lines that it writes."""
    from pypnm.support.worker_profile import build_worker_profile, profile_to_env_lines

    made = [build_worker_profile(cpu_count=cpus, total_memory_gib=gib) for cpus, gib in points]
    return [[profile.workers, profile.limit_max_requests, profile_to_env_lines(profile)] for profile in made]


def load(files):
    """PyPNM's result for each file: its four numbers, null if it ignores the file, or the name of the exception."""
    from pypnm.support.worker_profile import load_seeded_profile

    results = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        for text in files:
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
            try:
                found = load_seeded_profile(path)
            except Exception as error:  # any exception ends PyPNM
                results.append(type(error).__name__)
                continue
            results.append(found and [found.cpu_count, found.total_memory_gib, found.workers, found.limit_max_requests])
    return results


def default_path():
    """The default path of PyPNM's profile file."""
    from pypnm.support.worker_profile import default_profile_env_path

    return str(default_profile_env_path())


def detect():
    """The resources that PyPNM detects on this machine, and the number of CPUs in this process's affinity."""
    from pypnm.support.worker_profile import detect_cpu_count, detect_total_memory_bytes

    return [detect_cpu_count(), len(os.sched_getaffinity(0)), detect_total_memory_bytes()]


def serve(cases):
    """Starts PyPNM for each case, two at a time, and returns the results."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda case: _serve(**case), cases))


def _serve(command, environment, file=None, mode=0o644, directory_mode=0o755, requests=0):
    """`file`: the text of the profile, in a file and a directory with those modes, owned by root; PyPNM runs as
    nobody."""
    user = pwd.getpwnam("nobody")
    port = _free_port()
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        work, profiles = Path(place, "work"), Path(place, "profiles")
        work.mkdir()
        os.chown(work, user.pw_uid, user.pw_gid)
        profiles.mkdir()
        if file is not None:
            (profiles / "p.env").write_text(file)
            (profiles / "p.env").chmod(mode)
        profiles.chmod(directory_mode)
        words = [str(BIN / command[0]), *(word.replace("PORT", str(port)) for word in command[1:])]
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(work), "LANG": "C.UTF-8"}
        variables |= {key: value.replace("FILE", str(profiles / "p.env")) for key, value in environment.items()}
        with open(Path(place, "log"), "w+b") as log:
            process = subprocess.Popen(
                words, cwd=work, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                user=user.pw_uid, group=user.pw_gid, extra_groups=[],
            )  # fmt: skip
            try:
                answer = _profile(process, port)
                workers = _children(process.pid) if answer else 0
                for _ in range(requests):
                    with contextlib.suppress(OSError):
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10).close()
                status = None
                if requests or answer is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        status = process.wait(15)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            output = log.read().decode(errors="replace")
    return {"profile": answer, "workers": workers, "status": status, "log": output[-2000:]}


def _free_port():
    """A free port; each call returns a different one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _profile(process, port):
    """The effective values as reported by the service, or the error; None if it ended before it printed anything."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        url = f"http://127.0.0.1:{port}/pypnm/system/webService/runtimeProfile"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["profile"]
        except urllib.error.HTTPError as error:
            return {"http_status": error.code}
        except (OSError, ValueError):
            time.sleep(0.1)
    return None


def _children(pid):
    """The number of workers started by a parent; 1 if it serves itself."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    spawned = [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return len(spawned) or 1


def main():
    request = json.loads(sys.stdin.read())
    do = {function.__name__: function for function in (table, load, default_path, detect, serve)}[request.pop("do")]
    # PyPNM prints messages when it is imported.
    answers, sys.stdout = sys.stdout, sys.stderr
    json.dump(do(**request), answers)


main()
