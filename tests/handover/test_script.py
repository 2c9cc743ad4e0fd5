"""Tests of the shell script: which interpreter starts which script."""

import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "handover/handover"
# An interpreter: says how it was started. The package's directory becomes PACKAGE.
PYTHON = f'#!/bin/sh\nprintf "%s|" "${{0##*/}}" "$@" | sed "s,{SCRIPT.parent}/,,"\n'
PACKAGE = "pypnm_handover"


class Script(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.bin = Path(directory.name, "a venv/bin")
        self.bin.mkdir(parents=True)
        self.plain = Path(directory.name, "bin")
        self.plain.mkdir()
        for place in (self.bin, self.plain):
            self.program(place / "python3", PYTHON)
        self.command = self.plain / "pypnm"

    def program(self, path, text):
        path.write_text(text)
        path.chmod(0o755)

    def run_script(self, *arguments, path=None):
        environment = {"PATH": f"{path or self.plain}:/usr/bin:/bin"}
        return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)

    def starts(self, text, *expected):
        self.program(self.command, text)
        done = self.run_script("pypnm", "serve", "--host", "a b", "")
        self.assertEqual((done.stdout, done.stderr), ("|".join([*expected, str(self.command), "serve", "--host", "a b", "", ""]), ""))

    def test_the_interpreter_of_the_first_line(self):
        self.starts(f"#!{self.plain}/python3\nimport re\n", "python3", PACKAGE)

    def test_with_flags(self):
        self.starts(f"#! {self.plain}/python3 -sP\n", "python3", "-sP", PACKAGE)

    def test_by_env(self):
        self.starts("#!/usr/bin/env python3\n", "python3", PACKAGE)
        self.starts("#!/usr/bin/env -S python3 -I\n", "python3", "-I", PACKAGE)

    def test_as_pip_names_an_interpreter_with_a_blank(self):
        self.starts(f"#!/bin/sh\n'''exec' \"{self.bin}/python3\" \"$0\" \"$@\"\n' '''\n", "python3", PACKAGE)

    def test_as_uv_names_an_interpreter_beside_the_script(self):
        self.command = self.plain / "pypnm"
        text = "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n"
        self.starts(text, "python3", PACKAGE)

    def test_a_link_elsewhere(self):
        self.program(self.bin / "pypnm", f"#!{self.plain}/python3\n")
        self.command.symlink_to(self.bin / "pypnm")
        self.assertEqual(self.run_script("pypnm", "serve").stdout, f"python3|{PACKAGE}|{self.command}|serve|")

    def test_what_is_no_python_script_is_started_as_it_is(self):
        for text in ('#!/bin/sh\nprintf "plain %s" "$*"\n', '#!/usr/bin/env bash\nprintf "plain %s" "$*"\n'):
            self.program(self.command, text)
            done = self.run_script("pypnm", "serve", "x")
            self.assertEqual(done.stdout, "plain serve x")
            self.assertIn("does not name a Python interpreter; starting plain pypnm\n", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1)

    def test_a_program_is_started_as_it_is(self):
        self.command.symlink_to("/bin/echo")
        self.assertEqual(self.run_script("pypnm", "serve").stdout, "serve\n")

    def test_a_missing_command(self):
        done = self.run_script("pypnm", "serve")
        self.assertEqual((done.returncode, done.stdout), (127, ""))
        self.assertIn("pypnm: not found on PATH", done.stderr)

    def test_a_reload_during_the_start_ends_nothing(self):
        self.program(self.command, f"#!{sys.executable}\n")
        self.program(self.plain / "python3", "#!/bin/sh\nkill -HUP $$\necho alive\n")
        self.program(self.command, f"#!{self.plain}/python3\n")
        self.assertEqual(self.run_script("pypnm", "serve").stdout, "alive\n")

    def reload(self, command):
        """A process with this command line is asked to reload: the script, which waits, and the process."""
        # A shell can't trap a signal that it was started to ignore, as below nohup.
        main = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))
        self.addCleanup(main.stdout.close)
        self.addCleanup(main.wait)
        self.addCleanup(main.kill)
        main.stdout.readline()
        environment = {"PATH": f"{self.plain}:/usr/bin:/bin", "MAINPID": str(main.pid)}
        script = subprocess.Popen([SCRIPT, "--reload"], env=environment, stderr=subprocess.PIPE, text=True)
        self.addCleanup(script.wait)
        self.addCleanup(script.kill)
        return script, main

    def test_a_reload_lasts_until_the_launcher_has_counted_it(self):
        text = "trap 'sleep 1; printf handover/1 >/proc/$$/comm' HUP; echo; while :; do sleep 0.1; done"
        script, _ = self.reload(["sh", "-c", text, f"{SCRIPT.parent}/{PACKAGE}", "pypnm", "serve"])
        with self.assertRaises(subprocess.TimeoutExpired):
            script.wait(0.7)
        self.assertEqual((script.communicate(timeout=10)[1], script.returncode), ("", 0))

    def test_a_reload_that_fails(self):
        text = "trap 'printf handover/7! >/proc/$$/comm' HUP; echo; while :; do sleep 0.1; done"
        script, _ = self.reload(["sh", "-c", text, f"{SCRIPT.parent}/{PACKAGE}", "pypnm", "serve"])
        self.assertIn("the reload failed", script.communicate(timeout=10)[1])
        self.assertEqual(script.returncode, 1)

    def test_a_reload_that_the_launcher_does_not_survive_ends(self):
        script, main = self.reload(["sh", "-c", "trap : HUP; echo; while :; do sleep 0.1; done", f"{SCRIPT.parent}/{PACKAGE}", "pypnm", "serve"])
        with self.assertRaises(subprocess.TimeoutExpired):
            script.wait(0.5)
        main.kill()
        main.wait()
        self.assertEqual(script.wait(10), 0)

    def test_plain_pypnm_gets_no_signal(self):
        script, main = self.reload(["sh", "-c", "echo; sleep 20; exit", "pypnm", "serve"])
        self.assertIn("the service runs without the launcher", script.communicate(timeout=10)[1])
        self.assertIsNone(main.poll())
