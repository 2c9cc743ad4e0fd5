"""Tests of supervisor: which worker starts and ends, with simulated workers and a simulated clock."""

import random
import unittest

from pypnm_handover import supervisor
from pypnm_handover.supervisor import Profile, State, Supervisor


class Process:
    """A worker's process, which records the calls."""

    def __init__(self, pid, limit):
        self.pid, self.limit, self.grace, self.is_killed = pid, limit, [], False

    def retire(self, grace):
        self.grace.append(grace)

    def kill(self):
        self.is_killed = True


class Decisions(unittest.TestCase):
    def setUp(self):
        self.now = 100.0
        self.obstacle = None
        self.started = []

    def supervise(self, workers=1, limit=1000):
        def start(limit):
            self.started.append(Process(1000 + len(self.started), limit))
            return self.started[-1]

        self.supervisor = Supervisor(Profile(workers, limit), start, lambda serving: self.obstacle, lambda: self.now)
        self.supervisor.decide()
        return self.supervisor

    def serving(self, workers, limit=1000):
        """A service whose workers are all up."""
        self.supervise(workers, limit)
        for number in range(workers):
            self.up(number)
        self.assertEqual(self.pids(State.SERVING), list(range(workers)))
        return self.supervisor

    def worker(self, number):
        return next(worker for worker in self.supervisor.workers if worker.handle.pid == 1000 + number)

    def pids(self, state):
        return [worker.handle.pid - 1000 for worker in self.supervisor.workers if worker.state is state]

    def up(self, number):
        self.supervisor.is_up(self.worker(number))
        self.supervisor.decide()
        self.check_number()

    def spent(self, number):
        self.supervisor.is_spent(self.worker(number))
        self.supervisor.decide()
        self.check_number()

    def ends(self, number, how="status 0"):
        self.supervisor.has_ended(self.worker(number), how)
        self.supervisor.decide()
        self.check_number()

    def renew(self, workers, limit=1000):
        self.supervisor.renew(Profile(workers, limit))
        self.supervisor.decide()

    def check_number(self):
        """Never more than one additional worker, apart from those that a smaller profile makes superfluous."""
        superfluous = [worker for worker in self.supervisor.workers if worker.generation != self.supervisor._generation]
        self.assertLessEqual(len(self.supervisor.workers) - len(superfluous), self.supervisor.profile.workers + 1)

    def test_the_first_worker_starts_alone_then_the_others_together(self):
        self.supervise(4)
        self.assertEqual(self.pids(State.STARTING), [0])
        self.up(0)
        self.assertEqual(self.pids(State.STARTING), [1, 2, 3])

    def test_a_spent_worker_serves_until_its_successor_does(self):
        self.serving(1)
        self.spent(0)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([0], [1]))
        self.assertEqual(self.started[0].grace, [])
        self.up(1)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.RETIRED)), ([1], [0]))
        self.assertEqual(self.started[0].grace, [supervisor.GRACE_AT_HANDOVER])
        self.ends(0)
        self.assertEqual(self.pids(State.SERVING), [1])

    def test_one_successor_at_a_time(self):
        self.serving(4)
        for number in range(4):
            self.spent(number)
        for number in range(4):
            self.assertEqual(self.pids(State.STARTING), [4 + number])
            self.up(4 + number)
            # Not before the old one has ended: never more than one process beyond the four.
            self.assertEqual(self.pids(State.STARTING), [])
            self.ends(number)
        self.assertEqual(self.pids(State.SERVING), [4, 5, 6, 7])

    def test_workers_that_share_the_load_are_not_due_together(self):
        random.seed(1)
        self.supervise(4, 1000)
        self.up(0)
        limits = [process.limit for process in self.started]
        self.assertEqual(len(set(limits)), 4)
        self.assertTrue(all(900 <= limit <= 1000 for limit in limits), limits)
        self.supervise(1, 1000)
        self.assertEqual(self.started[-1].limit, 1000)
        self.supervise(4, 0)
        self.assertEqual(self.started[-1].limit, 0)

    def test_a_worker_that_is_killed_is_replaced_at_once(self):
        self.serving(2)
        self.ends(0, "SIGKILL")
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([1], [2]))

    def test_a_worker_that_is_killed_while_its_successor_starts(self):
        self.serving(1)
        self.spent(0)
        self.ends(0, "SIGKILL")
        self.assertEqual(self.pids(State.STARTING), [1])
        self.up(1)
        self.assertEqual(self.pids(State.SERVING), [1])

    def test_a_successor_that_dies_leaves_the_old_worker_serving(self):
        self.serving(1)
        self.spent(0)
        pauses = []
        for number in range(1, 9):
            self.ends(number, "status 1")
            self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([0], []))
            pauses.append(self.supervisor.next_decision())
            self.now += pauses[-1]
            self.supervisor.decide()
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, 60, 60])
        self.assertIsNone(self.supervisor.status)
        self.up(9)
        self.assertEqual(self.pids(State.SERVING), [9])
        self.assertFalse(self.supervisor.keeps_failing)

    def test_workers_that_die_at_their_start_end_the_service(self):
        self.supervise(2)
        for number in range(3):
            self.assertIsNone(self.supervisor.status)
            self.ends(number, "status 1")
            self.now += 60
            if number < 2:
                self.supervisor.decide()
        self.assertEqual(self.supervisor.status, 3)

    def test_a_worker_that_starts_ends_the_count(self):
        self.serving(1)
        for number in range(5):
            self.ends(2 * number, "SIGKILL")
            self.ends(2 * number + 1, "status 1")
            self.now += 60
            self.supervisor.decide()
            self.up(2 * number + 2)
        self.assertIsNone(self.supervisor.status)

    def test_a_reload_renews_all_one_by_one(self):
        self.serving(2)
        self.renew(2, 500)
        self.assertTrue(self.supervisor.is_renewing)
        for number in range(2):
            self.assertEqual(self.pids(State.STARTING), [2 + number])
            self.assertLessEqual(self.started[2 + number].limit, 500)
            self.up(2 + number)
            self.ends(number)
        self.assertFalse(self.supervisor.is_renewing)

    def test_a_reload_after_failed_starts_begins_anew(self):
        self.serving(1)
        self.renew(1)
        for number in range(1, supervisor.ATTEMPTS + 3):
            self.ends(number, "status 1")
            self.now += supervisor.LONGEST_PAUSE
            self.supervisor.decide()
        self.ends(number + 1, "status 1")
        self.assertTrue(self.supervisor.keeps_failing)
        self.renew(1, 500)
        # At once, and not complete before the outcome is known.
        self.assertEqual(self.pids(State.STARTING), [number + 2])
        self.assertFalse(self.supervisor.keeps_failing)
        self.up(number + 2)
        self.assertEqual(self.pids(State.SERVING), [number + 2])

    def test_a_reload_to_more_workers(self):
        self.serving(1)
        self.renew(3)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([0], [1, 2]))
        self.up(1)
        self.up(2)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([0, 1, 2], [3]))
        self.up(3)
        self.ends(0)
        self.assertEqual((self.pids(State.SERVING), self.supervisor.is_renewing), ([1, 2, 3], False))

    def test_a_reload_to_fewer_workers_keeps_one_serving(self):
        self.serving(4)
        self.renew(1)
        self.assertEqual(len(self.pids(State.SERVING)), 1)
        (last,) = self.pids(State.SERVING)
        for number in self.pids(State.RETIRED):
            self.ends(number)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([last], [4]))
        self.up(4)
        self.ends(last)
        self.assertEqual((self.pids(State.SERVING), self.supervisor.is_renewing), ([4], False))

    def test_a_reload_back_while_workers_start_keeps_one_serving(self):
        self.serving(1)
        self.renew(2)
        self.assertEqual(self.pids(State.STARTING), [1])
        self.renew(1)
        # The one that serves nobody yet goes.
        self.assertEqual((self.pids(State.SERVING), self.pids(State.RETIRED)), ([0], [1]))
        self.ends(1)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([0], [2]))
        self.up(2)
        self.assertEqual(self.pids(State.SERVING), [2])

    def test_a_second_reload_while_a_successor_starts(self):
        self.serving(1)
        self.renew(1, 500)
        self.renew(1, 700)
        self.up(1)
        self.ends(0)
        # It was started for the profile before.
        self.assertTrue(self.supervisor.is_renewing)
        self.assertEqual(self.started[2].limit, 700)
        self.up(2)
        self.ends(1)
        self.assertFalse(self.supervisor.is_renewing)

    def test_a_reload_is_complete_when_the_old_workers_have_ended_or_take_long(self):
        self.serving(1)
        self.renew(1)
        self.up(1)
        self.assertTrue(self.supervisor.is_renewing)
        self.assertEqual(self.supervisor.next_decision(), supervisor.RELOAD_PATIENCE)
        self.now += supervisor.RELOAD_PATIENCE
        self.assertFalse(self.supervisor.is_renewing)

    def test_a_reload_before_the_first_worker_is_up(self):
        self.supervise(1)
        self.renew(1, 500)
        self.up(0)
        self.assertEqual(self.pids(State.STARTING), [1])

    def test_a_retired_worker_that_does_not_end_is_killed(self):
        self.serving(1)
        self.spent(0)
        self.up(1)
        self.now += supervisor.PATIENCE_AT_HANDOVER - 1
        self.supervisor.decide()
        self.assertFalse(self.started[0].is_killed)
        self.now += self.supervisor.next_decision()
        self.supervisor.decide()
        self.assertTrue(self.started[0].is_killed)
        self.assertIsNone(self.supervisor.next_decision())

    def test_without_memory_for_a_successor_the_old_worker_ends_first(self):
        self.serving(1)
        self.obstacle = "memory.max leaves 0 MiB"
        self.spent(0)
        self.assertEqual((self.pids(State.RETIRED), self.pids(State.STARTING)), ([0], []))
        # Memory may become free without an event.
        self.assertEqual(self.supervisor.next_decision(), 1.0)
        self.ends(0)
        self.assertEqual(self.pids(State.STARTING), [1])
        self.up(1)
        self.assertIsNone(self.supervisor.next_decision())

    def test_without_memory_two_workers_take_turns(self):
        self.serving(2)
        self.obstacle = "memory.max leaves 0 MiB"
        self.renew(2)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.RETIRED)), ([1], [0]))
        self.ends(0)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.STARTING)), ([1], [2]))
        self.up(2)
        self.assertEqual((self.pids(State.SERVING), self.pids(State.RETIRED)), ([2], [1]))
        self.ends(1)
        self.up(3)
        self.assertFalse(self.supervisor.is_renewing)

    def test_a_number_beyond_every_profile_grows_while_there_is_memory(self):
        self.supervise(10**9)
        for number in range(supervisor.LARGEST_PROFILE + 2):
            self.up(number)
        # The first alone, the next eight at once, then one after the other.
        self.assertEqual(len(self.started), supervisor.LARGEST_PROFILE + 3)
        self.obstacle = "memory.max leaves 0 MiB"
        self.up(supervisor.LARGEST_PROFILE + 2)
        serving = supervisor.LARGEST_PROFILE + 3
        self.assertEqual((len(self.pids(State.SERVING)), len(self.started)), (serving, serving))
        self.assertEqual(self.supervisor.next_decision(), 1.0)
        self.assertFalse(self.supervisor.is_renewing)
        # They are recycled all the same.
        self.spent(0)
        self.assertEqual(self.pids(State.RETIRED), [0])
        self.obstacle = None
        self.now += 1
        self.supervisor.decide()
        self.assertEqual(len(self.pids(State.STARTING)), 1)

    def test_a_worker_that_does_not_start_is_killed(self):
        self.serving(1)
        self.spent(0)
        self.assertEqual(self.supervisor.next_decision(), supervisor.PATIENCE_AT_START)
        self.now += supervisor.PATIENCE_AT_START
        self.supervisor.decide()
        self.assertTrue(self.started[1].is_killed)
        self.ends(1, "SIGKILL")
        self.assertEqual(self.pids(State.SERVING), [0])
        self.now += supervisor.SHORTEST_PAUSE
        self.supervisor.decide()
        self.up(2)
        # One that serves has no deadline.
        self.now += 10 * supervisor.PATIENCE_AT_START
        self.supervisor.decide()
        self.assertFalse(self.started[2].is_killed)

    def test_without_processes_the_old_worker_serves_on_and_a_service_without_one_ends(self):
        def fail(limit):
            raise BlockingIOError(11, "Resource temporarily unavailable")

        self.serving(1)
        start, self.supervisor._start_process = self.supervisor._start_process, fail
        self.spent(0)
        self.assertEqual(self.pids(State.SERVING), [0])
        self.assertEqual(self.supervisor.next_decision(), supervisor.SHORTEST_PAUSE)
        self.supervisor._start_process = start
        self.now += supervisor.SHORTEST_PAUSE
        self.supervisor.decide()
        self.assertEqual(self.pids(State.STARTING), [1])

        alone = Supervisor(Profile(1, 0), fail, clock=lambda: self.now)
        for _ in range(supervisor.ATTEMPTS + 1):
            alone.decide()
            self.now += supervisor.LONGEST_PAUSE
        self.assertEqual(alone.status, supervisor.STARTUP_FAILURE)

    def test_a_stop_retires_all_and_ends_with_the_last(self):
        self.serving(2)
        self.spent(0)
        self.up(2)
        self.supervisor.stop()
        self.supervisor.decide()
        self.assertEqual(self.started[0].grace, [supervisor.GRACE_AT_HANDOVER, supervisor.GRACE_AT_STOP])
        self.assertEqual(self.started[1].grace, [supervisor.GRACE_AT_STOP])
        for number in (0, 1):
            self.ends(number)
            self.assertIsNone(self.supervisor.status)
        self.ends(2, "SIGKILL")
        self.assertEqual((self.supervisor.status, self.supervisor.workers), (0, []))

    def test_a_stop_is_bounded(self):
        self.serving(1)
        self.supervisor.stop()
        self.supervisor.decide()
        self.now += supervisor.PATIENCE_AT_STOP
        self.supervisor.decide()
        self.assertTrue(self.started[0].is_killed)

    def test_a_stop_starts_nothing(self):
        self.serving(1)
        self.spent(0)
        self.supervisor.stop()
        self.ends(1)
        self.ends(0)
        self.assertEqual(len(self.started), 2)

    def test_random_histories_keep_a_worker_serving(self):
        """Once a worker serves, at least one serves at any time, unless workers are killed."""
        for seed in range(300):
            with self.subTest(seed=seed):
                dice = random.Random(seed)
                self.started = []
                self.serving(dice.randint(1, 4))
                for _ in range(60):
                    self.now += dice.choice((0, 0, 1, 70))
                    self.happens(dice)
                    self.assertTrue(self.pids(State.SERVING))
                    self.check_number()
                self.assertIsNone(self.supervisor.status)

    def happens(self, dice):
        event = dice.choice(("up", "up", "spent", "retired ends", "dies at start", "renew", "time"))
        starting, retired = self.pids(State.STARTING), self.pids(State.RETIRED)
        if event == "up" and starting:
            self.up(dice.choice(starting))
        elif event == "spent":
            self.spent(dice.choice(self.pids(State.SERVING)))
        elif event == "retired ends" and retired:
            self.ends(dice.choice(retired))
        elif event == "dies at start" and starting:
            self.ends(dice.choice(starting), "status 1")
        elif event == "renew":
            self.renew(dice.randint(1, 4))
        else:
            self.supervisor.decide()
