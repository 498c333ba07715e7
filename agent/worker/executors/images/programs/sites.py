"""The pages of `swarmtui/whoami`, `swarmtui/web` and the stand-ins for web servers.

Arguments: the site (whoami, web, page), then for `page` what it stands in for. `--port N` and PORT move the port;
TASK_PORT_SHIFT is added to ports under 1024 where the host keeps those to root (the executor sets and undoes it).
"""

from __future__ import annotations

import os
import sys

from agent.worker.executors.images.programs.serving import Answer, Request, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_PORTS = {"whoami": 8000, "web": 80, "page": 80}
COLOURS = {"1.0": "#2b6cb0", "1.1": "#2f855a"}
HTML = "text/html; charset=utf-8"


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """Serve the site named by the first argument until SIGTERM; the exit code."""
    site, rest = arguments[0], arguments[1:]
    try:
        port = choose_port(site, rest, environment)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    address = environment.get("TASK_ADDRESS", "")
    place = Place(environment, port)
    respond: Callable[[Request], Answer]
    if site == "whoami":
        respond = WhoAmI(place).respond
    elif site == "web":
        respond = Web(place, environment.get("VERSION", "1.0")).respond
    else:
        respond = Page(rest[0] if rest and not rest[0].startswith("-") else "web").respond
    try:
        server = Server(address, port, respond, log)
    except OSError as error:
        sys.stderr.write(f"{place.task}: cannot listen on {address or '0.0.0.0'}:{port}: {error.strerror}\n")
        return 1
    server.stop_on_signals()
    announce(environment.get("TASK_READY_FD", ""))
    log(f"{place.task}: listening on {server.address[0]}:{server.address[1]}")
    server.run()
    log(f"{place.task}: stopped")
    return 0


def log(text: str) -> None:
    """One line on stdout; a reader that is gone does not stop the service."""
    try:
        os.write(1, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        return


def announce(descriptor: str) -> None:
    """Tell whoever started this program, and asked for it, that it listens."""
    if descriptor.isdigit():
        os.write(int(descriptor), b"ready")
        os.close(int(descriptor))


def choose_port(site: str, arguments: list[str], environment: Mapping[str, str]) -> int:
    """The port to listen on. ValueError for one that is none."""
    text = environment.get("PORT", "") or str(DEFAULT_PORTS[site])
    if "--port" in arguments:
        text = "".join(arguments[arguments.index("--port") + 1 :][:1])
    if not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port: a number from 0 to 65535 is needed")
    port = int(text)
    shift = environment.get("TASK_PORT_SHIFT", "0")
    return port + int(shift) if 0 < port < 1024 and shift.isdigit() else port


class Place:
    """Which task on which node this is, from the environment that the executor (or a person, by templates) sets."""

    def __init__(self, environment: Mapping[str, str], port: int) -> None:
        self.hostname = environment.get("HOSTNAME", "") or os.uname().nodename
        self.task = environment.get("TASK_NAME", "") or self.hostname
        self.service = environment.get("SERVICE_NAME", "")
        self.slot = environment.get("TASK_SLOT", "")
        self.node = environment.get("NODE_HOSTNAME", "") or os.uname().nodename
        self.address = f"{environment.get('TASK_ADDRESS', '') or '0.0.0.0'}:{port}"


class WhoAmI:
    """Says which replica answered: text at /, JSON at /api; `?wait=2s` delays the answer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._count = 0

    def respond(self, request: Request) -> Answer:
        """The answer to a request."""
        place = self._place
        self._count += 1
        facts: dict[str, str | int] = {
            "hostname": place.hostname,
            "task": place.task,
            "service": place.service,
            "slot": int(place.slot) if place.slot.isdigit() else place.slot,
            "node": place.node,
            "address": place.address,
            "remote": request.remote,
            "requests": self._count,
            "pid": os.getpid(),
        }
        if request.path == "/api":
            return Answer(json_object(facts) + "\n", "application/json")
        if request.path == "/health":
            return Answer("ok\n")
        if request.path != "/":
            return Answer("404 page not found\n", status=404)
        lines = [f"I'm {place.hostname}"]
        lines += [
            f"{name.capitalize()}: {value}" for name, value in facts.items() if name != "hostname" and value != ""
        ]
        return Answer("\n".join(lines) + "\n")


class Web:
    """A page that shows its version, so that a rolling update can be watched."""

    def __init__(self, place: Place, version: str) -> None:
        self._place = place
        self._version = version

    def respond(self, request: Request) -> Answer:
        """The answer to a request."""
        if request.path == "/version":
            return Answer(f"{self._version}\n")
        if request.path == "/health":
            return Answer("ok\n")
        if request.path not in ("/", "/index.html"):
            return Answer("404 page not found\n", status=404)
        version, colour = escape(self._version), COLOURS.get(self._version, "#4a5568")
        return Answer(
            f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>web {version}</title>\n"
            f"<body style='font-family:sans-serif;background:{colour};color:#fff;text-align:center;padding-top:15vh'>\n"
            f"<h1>Version {version}</h1>\n<p>{escape(self._place.task)} on {escape(self._place.node)}</p>\n</body></html>\n",
            HTML,
        )


class Page:
    """The one static page of a stand-in."""

    def __init__(self, name: str) -> None:
        self._name = name

    def respond(self, request: Request) -> Answer:
        """The answer to a request."""
        if request.path not in ("/", "/index.html"):
            return Answer("404 Not Found\n", status=404)
        name = escape(self._name)
        return Answer(
            f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{name}</title>\n"
            f"<body><h1>It works!</h1>\n<p>This is swarmtui's stand-in for {name}.</p></body></html>\n",
            HTML,
        )


def escape(text: str) -> str:
    """Text inside an HTML element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def json_object(facts: Mapping[str, str | int]) -> str:
    """A flat JSON object. The json module would cost each task 1.2 MB for this one line."""
    return "{" + ", ".join(f"{json_string(key)}: {_json_value(value)}" for key, value in facts.items()) + "}"


def _json_value(value: str | int) -> str:
    return str(value) if isinstance(value, int) else json_string(value)


def json_string(text: str) -> str:
    """A JSON string in ASCII."""
    out = []
    for character in text:
        code = ord(character)
        if character in '"\\':
            out.append("\\" + character)
        elif 32 <= code < 127:
            out.append(character)
        elif code < 0x10000:
            out.append(f"\\u{code:04x}")
        else:
            code -= 0x10000
            out.append(f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}")
    return '"' + "".join(out) + '"'
