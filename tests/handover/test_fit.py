"""Tests of fit: the requirements on uvicorn, with the real one and with incomplete ones."""

import types
import unittest

import uvicorn
from pypnm_handover import fit

ARGUMENTS = {"host": "127.0.0.1", "port": 8000, "workers": 2, "log_level": "warning", "limit_max_requests": 10}


async def application(scope, receive, send):
    """Not by name: a worker could not import it."""


class Fit(unittest.TestCase):
    def lacking(self, **members):
        """A uvicorn whose Server has other members."""
        server = type("Server", (uvicorn.Server,), members)
        return types.SimpleNamespace(Config=uvicorn.Config, Server=server)

    def obstacle(self, module=uvicorn, app="module:app", **arguments):
        return fit.obstacle(module, app, {**ARGUMENTS, **arguments})

    def test_the_real_uvicorn_fits(self):
        self.assertIsNone(self.obstacle())
        self.assertIsNone(self.obstacle(ssl_certfile="cert.pem", ssl_keyfile="key.pem"))

    def test_reload_and_applications_without_a_name(self):
        self.assertIn("--reload", self.obstacle(reload=True))
        self.assertIn("import string", self.obstacle(app=application))

    def test_arguments_that_uvicorn_does_not_know(self):
        self.assertEqual(self.obstacle(colour="red"), "uvicorn.Config does not know colour")

    def test_arguments_that_cannot_be_passed_on(self):
        self.assertIn("cannot be passed to a worker", self.obstacle(log_config={"version": 1, "x": lambda: None}))

    def test_a_server_of_another_kind(self):
        def plain(self, counter):
            pass

        async def bare(self):
            pass

        for members, expected in (
            ({"on_tick": None}, "uvicorn.Server has no coroutine on_tick()"),
            ({"on_tick": plain}, "uvicorn.Server has no coroutine on_tick()"),
            ({"startup": bare}, "uvicorn.Server.startup() does not take sockets"),
            ({"__init__": lambda self, config: None}, "uvicorn.Server has no config"),
        ):
            with self.subTest(expected):
                self.assertEqual(self.obstacle(self.lacking(**members)), expected)

    def test_a_state_of_another_kind(self):
        class Server(uvicorn.Server):
            def __init__(self, config):
                super().__init__(config)
                self.server_state.connections = []

        module = types.SimpleNamespace(Config=uvicorn.Config, Server=Server)
        self.assertEqual(self.obstacle(module), "uvicorn's server state has no set connections")

    def test_no_uvicorn_at_all(self):
        self.assertIn("uvicorn is not as expected", self.obstacle(types.SimpleNamespace()))
