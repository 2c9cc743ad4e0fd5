"""Runs the tests in this directory with the current Python, and reports the counts that tests/run expects.

    tests.py ATTEMPTS [NAME...]     a test that fails is run up to ATTEMPTS times
"""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "handover"))
sys.path.insert(0, str(HERE))


def failed_in(result):
    """The names of the tests that failed; a part of a test counts as the test."""
    failed = [test for test, _ in result.failures + result.errors] + result.unexpectedSuccesses
    return sorted({getattr(test, "test_case", test).id() for test in failed})


def main():
    attempts, *names = sys.argv[1:]
    loader = unittest.TestLoader()
    tests = loader.loadTestsFromNames(names) if names else loader.discover(str(HERE), pattern="test_*.py", top_level_dir=str(HERE))
    result = unittest.TextTestRunner(verbosity=2, buffer=True).run(tests)
    run, failed = result.testsRun, failed_in(result)
    for _ in range(1, int(attempts)):
        if not failed:
            break
        print("".join(f"AGAIN {name}\n" for name in failed), end="", flush=True)
        failed = failed_in(unittest.TextTestRunner(verbosity=2, buffer=True).run(loader.loadTestsFromNames(failed)))
    print("".join(f"FAIL  {name}\n" for name in failed), end="")
    print(f"{run - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or not run else 0


if __name__ == "__main__":
    sys.exit(main())
