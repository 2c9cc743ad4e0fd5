#!/usr/bin/env python3
"""A load of HTTP requests that notices every lost one; runs in the machine, on its loopback addresses only.

    load.py [--seconds N] [--new RATE] [--keep-alive N] [--trickle N] [--slow N] [--tls] [--host H] [--port P] [--stop-file F]

--new: connections a second with one request each. --keep-alive: clients that send two requests a second on one
connection. --trickle: clients that take two seconds to send a request. --slow: clients whose requests PyPNM works on
for seconds. Ends after --seconds, or two seconds after --stop-file exists. Prints JSON: for each kind how many requests
were answered, the slowest in seconds, and how the others failed: refused, reset, cut (closed before the whole answer
came), timeout, or status-NNN; lost: all that failed; losses: the first of them, with the second they began.
"""

import argparse
import asyncio
import collections
import contextlib
import ipaddress
import json
import os
import socket
import ssl
import time

PATH = "/pypnm/system/webService/runtimeProfile"
# PyPNM queries a cable modem that does not exist, until SNMP times out.
SLOW_PATH = "/system/sysDescr"
SLOW_BODY = json.dumps({"cable_modem": {
    "mac_address": "aa:bb:cc:dd:ee:ff", "ip_address": "127.0.0.5", "snmp": {"snmpV2C": {"community": "private"}},
}}).encode()  # fmt: skip
# Longer than a start on a busy machine: a request that waits in the socket's queue is not lost.
PATIENCE = 90


class Load:
    """All clients, and the results of their requests."""

    def __init__(self, options):
        self.options = options
        self.started = time.monotonic()
        self.tls = None
        if options.tls:
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.latencies = collections.defaultdict(list)
        self.failures = collections.defaultdict(collections.Counter)
        self.losses = []

    def is_over(self):
        now = time.monotonic() - self.started
        file = self.options.stop_file
        if file and os.path.exists(file) and time.time() - os.path.getmtime(file) >= 2:
            return True
        return now >= self.options.seconds

    async def run(self):
        options = self.options
        clients = [self.keep_alive(number) for number in range(options.keep_alive)]
        clients += [self.trickle(number) for number in range(options.trickle)]
        clients += [self.slow(number) for number in range(options.slow)]
        if options.new:
            clients.append(self.new())
        await asyncio.gather(*clients)

    def report(self):
        result = {}
        for kind in sorted({*self.latencies, *self.failures}):
            latencies = self.latencies[kind]
            result[kind] = {"answered": len(latencies), "slowest": round(max(latencies, default=0), 3), **self.failures[kind]}
        lost = sum(sum(counter.values()) for counter in self.failures.values())
        return {**result, "answered": sum(map(len, self.latencies.values())), "lost": lost, "losses": self.losses[:8]}

    async def measured(self, kind, request):
        """Counts a request, and returns whether it was answered."""
        began = time.monotonic()
        try:
            status = await asyncio.wait_for(request, PATIENCE)
            failure = None if status < 500 else f"status-{status}"
        except ConnectionRefusedError:
            failure = "refused"
        except (ConnectionResetError, BrokenPipeError):
            failure = "reset"
        except (EOFError, asyncio.IncompleteReadError):
            failure = "cut"
        except (TimeoutError, asyncio.TimeoutError):
            failure = "timeout"
        except OSError as error:
            failure = type(error).__name__
        if failure is None:
            self.latencies[kind].append(time.monotonic() - began)
            return True
        self.failures[kind][failure] += 1
        self.losses.append([round(began - self.started, 2), kind, failure])
        return False

    async def new(self):
        requests, number = [], 0
        while not self.is_over():
            requests.append(asyncio.create_task(self.measured("new", self.single())))
            number += 1
            await asyncio.sleep(max(0.0, self.started + number / self.options.new - time.monotonic()))
        await asyncio.gather(*requests)

    async def keep_alive(self, number):
        await asyncio.sleep(number / 10)
        connection = Connection(self)
        while not self.is_over():
            if not await self.measured("keep-alive", connection.request(False)):
                connection.close()
            await asyncio.sleep(0.5)
        connection.close()

    async def trickle(self, number):
        await asyncio.sleep(number / 3)
        while not self.is_over():
            await self.measured("trickle", self.single(pause=0.2)) or await asyncio.sleep(0.2)

    async def slow(self, number):
        await asyncio.sleep(number)
        while not self.is_over():
            await self.measured("slow", self.single(SLOW_PATH, SLOW_BODY))
            await asyncio.sleep(0.2)

    async def single(self, path=PATH, body=b"", pause=0.0):
        connection = Connection(self)
        try:
            return await connection.request(True, path, body, pause)
        finally:
            connection.close()


class Connection:
    """A client's connection: opened when needed, and closed when the server asks for it."""

    def __init__(self, load):
        self.load = load
        self.reader = self.writer = None

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def request(self, is_last, path=PATH, body=b"", pause=0.0):
        """The status of the response."""
        options = self.load.options
        if self.writer is not None and self.reader.at_eof():
            # As any client with a connection pool does.
            self.close()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(options.host, options.port, ssl=self.load.tls)
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: load\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        if is_last:
            head += "Connection: close\r\n"
        data = head.encode() + b"\r\n" + body
        step = -(-len(data) // 10) if pause else len(data)
        for start in range(0, len(data), step):
            self.writer.write(data[start : start + step])
            await self.writer.drain()
            await asyncio.sleep(pause)
        status_line = await self.reader.readline()
        if not status_line:
            raise EOFError
        length, says_close = 0, False
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            if name.lower() == "connection" and value.strip().lower() == "close":
                says_close = True
        await self.reader.readexactly(length)
        if says_close:
            self.close()
        return int(status_line.split()[1])


def loopback(host):
    """Only addresses of this machine are used."""
    with contextlib.suppress(OSError):
        if all(ipaddress.ip_address(info[4][0]).is_loopback for info in socket.getaddrinfo(host, None)):
            return host
    raise argparse.ArgumentTypeError(f"{host}: not a loopback address")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=lambda text: min(float(text), 600.0), default=10.0)
    parser.add_argument("--new", type=lambda text: min(float(text), 100.0), default=0)
    parser.add_argument("--keep-alive", type=lambda text: min(int(text), 50), default=0)
    parser.add_argument("--trickle", type=lambda text: min(int(text), 50), default=0)
    parser.add_argument("--slow", type=lambda text: min(int(text), 5), default=0)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--host", type=loopback, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--stop-file")
    load = Load(parser.parse_args())
    asyncio.run(load.run())
    print(json.dumps(load.report()))


if __name__ == "__main__":
    main()
