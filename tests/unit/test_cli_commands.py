"""The commands, typed as a person does, against an engine over a real socket: output, errors, exit status."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from client_fake_engine import FakeEngine, frame, in_a_thread, log_frame, make_service, make_task, problem

from swarmtui.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with in_a_thread(FakeEngine()) as fake:
        yield fake


def sw(engine: FakeEngine, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["-H", str(engine.address), *arguments], catch_exceptions=False)


def ok(engine: FakeEngine, *arguments: str) -> str:
    result = sw(engine, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(engine: FakeEngine, *arguments: str) -> str:
    result = sw(engine, *arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.stderr.strip()


def test_the_session_of_the_readme(engine: FakeEngine) -> None:
    assert "Leader" in ok(engine, "node", "ls")
    created = ok(
        engine, "service", "create", "-d", "--name", "whoami", "--replicas", "6", "-p", "8081:8000", "swarmtui/whoami"
    )
    assert created.strip() in engine.tables["services"]
    assert engine.tables["services"][created.strip()]["Spec"]["EndpointSpec"]["Ports"] == [
        {"Protocol": "tcp", "TargetPort": 8000, "PublishMode": "ingress", "PublishedPort": 8081}
    ]
    listed = ok(engine, "service", "ls").splitlines()
    assert listed[0].split() == ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
    assert "whoami" in listed[1]
    assert len(ok(engine, "service", "ps", "whoami").splitlines()) == 7
    assert ok(engine, "service", "scale", "-d", "whoami=9").strip() == "whoami scaled to 9"
    assert len(ok(engine, "service", "ps", "-q", "whoami").splitlines()) == 9
    assert len(ok(engine, "task", "ls", "-q").splitlines()) == 9
    assert ok(engine, "service", "rm", "whoami").strip() == "whoami"
    assert engine.tables["services"] == {}


def test_create_waits_and_shows_how_far_it_is(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmtui.operations.convergence.DEFAULT_MONITOR", 0)
    out = ok(engine, "service", "create", "--name", "web", "--replicas", "3", "web:1", "sh", "-c", "exit 0")
    assert "3 out of 3 tasks" in out
    assert "done" in out
    (service,) = engine.tables["services"].values()
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Args"] == ["sh", "-c", "exit 0"]
    assert ok(engine, "service", "scale", "-q", "web=1").splitlines() == ["web scaled to 1"]


def test_json_is_the_engines_own(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    for command in (["service", "ls"], ["node", "ls"], ["task", "ls"], ["service", "ps", "web"], ["node", "ps"]):
        assert isinstance(json.loads(ok(engine, *command, "--json")), list)
    assert json.loads(ok(engine, "service", "inspect", "web"))[0]["ID"] == "s1"
    assert json.loads(ok(engine, "node", "inspect", "self"))[0]["ID"] == "n1"
    assert json.loads(ok(engine, "swarm", "inspect"))["JoinTokens"]["Worker"].startswith("SWMTKN")


def test_what_is_not_there_is_named_and_the_rest_is_shown(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    result = sw(engine, "service", "inspect", "web", "nosuch")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["ID"] == "s1"
    assert result.stderr.strip() == "Error: no such service: nosuch"
    assert refused(engine, "service", "ps", "nosuch") == "no such service: nosuch"
    assert refused(engine, "service", "rm", "nosuch") == "Error response from daemon: service nosuch not found"
    assert refused(engine, "service", "logs", "nosuch") == "Error: no such task or service: nosuch"
    assert refused(engine, "service", "scale", "nosuch=2") == (
        "nosuch: Error response from daemon: service nosuch not found"
    )
    assert refused(engine, "node", "rm", "nosuch") == "Error response from daemon: node nosuch not found"
    assert "nosuch" in refused(engine, "service", "create", "--network", "nosuch", "web")
    assert refused(engine, "service", "create", "--secret", "nosuch", "web") == "Error: secret not found: nosuch"


def test_one_bad_scale_does_not_stop_the_others(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    engine.put("services", make_service("s2", "every", mode={"Global": {}}))
    result = sw(engine, "service", "scale", "-d", "every=2", "web=3")
    assert result.exit_code == 1
    assert result.stdout.strip() == "web scaled to 3"
    assert "every: scale can only be used with replicated" in result.stderr


def test_a_worker_answers_in_dockers_words(engine: FakeEngine) -> None:
    engine.manager = False
    text = refused(engine, "service", "ls")
    assert text.startswith("Error response from daemon: This node is not a swarm manager.")


def test_node_update(engine: FakeEngine) -> None:
    ok(engine, "node", "update", "--availability", "drain", "--label-add", "zone=a", "node2")
    spec = engine.tables["nodes"]["n2"]["Spec"]
    assert (spec["Availability"], spec["Labels"]) == ("drain", {"zone": "a"})
    assert refused(engine, "node", "update", "--label-rm", "nope", "node2").endswith("doesn't exist in node's labels")
    assert "promoted" in ok(engine, "node", "promote", "node2")
    ok(engine, "node", "rm", "--force", "node2")
    assert "n2" not in engine.tables["nodes"]


def test_update_changes_only_what_is_given(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web", 2))
    ok(engine, "service", "update", "-d", "--image", "web:2", "--replicas", "4", "--env-add", "A=1", "--force", "web")
    spec = engine.tables["services"]["s1"]["Spec"]
    assert spec["TaskTemplate"] == {"ContainerSpec": {"Image": "web:2", "Env": ["A=1"]}, "ForceUpdate": 1}
    assert spec["Mode"] == {"Replicated": {"Replicas": 4}}
    ok(engine, "service", "update", "-d", "--env-rm", "A", "web")
    assert "Env" not in engine.tables["services"]["s1"]["Spec"]["TaskTemplate"]["ContainerSpec"]
    ok(engine, "service", "rollback", "-d", "web")
    assert engine.tables["services"]["s1"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]


def test_swarm_commands(engine: FakeEngine) -> None:
    out = ok(engine, "swarm", "init", "--advertise-addr", "eth0")
    assert "Swarm initialized: current node (n1) is now a manager." in out
    assert "swarmtui swarm join --token SWMTKN-1-aaa-w 10.0.0.1:2377" in out
    body = next(body for method, path, body in engine.requests if path == "/swarm/init")
    assert body is not None
    assert body["AdvertiseAddr"] == "eth0"
    assert ok(engine, "swarm", "join-token", "-q", "manager") == "SWMTKN-1-aaa-m\n"
    ok(engine, "swarm", "join-token", "--rotate", "worker")
    assert any("rotateWorkerToken=true" in path for _, path, _ in engine.requests)
    assert "joined a swarm as a manager" in ok(engine, "swarm", "join", "--token", "T", "10.0.0.1:2377")
    assert ok(engine, "swarm", "leave", "--force") == "Node left the swarm.\n"


def test_logs_go_where_the_replica_wrote_them(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    engine.put("tasks", make_task("t1", "s1", 1))
    engine.log_chunks["s1"] = [
        log_frame("2026-11-21T09:25:43.7Z", "t1", b"hello\n"),
        log_frame("2026-11-21T09:25:43.8Z", "t1", b"oh no\n", stream=2),
        frame(3, b"warning: incomplete log stream\n"),
    ]
    result = sw(engine, "logs", "web")
    assert result.exit_code == 0
    assert result.stdout == "web.1.t1@node1    | hello\n"
    assert result.stderr.splitlines() == ["web.1.t1@node1    | oh no", "-- warning: incomplete log stream"]
    assert ok(engine, "service", "logs", "-t", "--no-task-ids", "--tail", "5", "web").startswith(
        "web.1@node1    | 2026-11-21T09:25:43.700000000Z hello"
    )
    assert sw(engine, "logs", "--raw", "web").stdout == "hello\n"
    lines = [json.loads(line) for line in ok(engine, "logs", "--json", "web").splitlines()]
    assert [line.get("text") for line in lines] == ["hello", "oh no", "warning: incomplete log stream"]
    assert lines[0]["stream"] == "stdout"
    assert lines[2]["notice"] == "engine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["service", "create"],
        ["service", "create", "--replicas", "-1", "web"],
        ["service", "create", "--publish", "x", "web"],
        ["service", "create", "--mode", "global", "--replicas", "2", "web"],
        ["service", "create", "--no-healthcheck", "--health-cmd", "true", "web"],
        ["service", "create", "--entrypoint", "'unfinished", "web"],
        ["service", "scale", "web"],
        ["service", "logs", "--tail", "x", "web"],
        ["service", "logs", "--since", "yesterday", "web"],
        ["service", "ls", "--filter", "x"],
        ["node", "update", "--availability", "maybe", "n1"],
        ["events", "--since", "x"],
        ["nosuch"],
    ],
)
def test_a_wrong_command_line_says_so(engine: FakeEngine, arguments: list[str]) -> None:
    engine.put("services", make_service("s1", "web"))
    result = sw(engine, *arguments)
    assert result.exit_code == 2, result.output
    assert "Error" in result.stderr
    assert not any(method == "POST" for method, _, _ in engine.requests)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-H", "unix:///" + "a" * 200], "107 at most"),
        (["-H", "unix:///tmp/no-such-socket"], "is the agent"),
        (["-H", "tcp://x:1", "-c", "prod"], "exclude each other"),
        (["-c", "no-such-context"], "there is no context"),
        (["-H", "ssh://host"], "not supported yet"),
    ],
)
def test_an_engine_that_cannot_be_used_is_one_clear_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, [*arguments, "node", "ls"])
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_version_shows_what_it_knows(engine: FakeEngine) -> None:
    assert "20.10.24" in ok(engine, "version")
    assert json.loads(ok(engine, "version", "--json"))["Server"]["ApiVersion"] == "1.41"
    result = CliRunner().invoke(cli, ["-H", "unix:///tmp/no-such-socket", "version"])
    assert (result.exit_code, "Client:" in result.stdout) == (1, True)


def test_every_command_has_help_and_no_command_is_imported_for_the_list() -> None:
    code = "import sys; from swarmtui.cli import main; sys.argv[1:] = ['--help']\ntry: main()\nfinally: print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not {"aiohttp", "textual", "swarmtui.commands.service"} & set(out.split())
    for name in COMMANDS:
        assert name in out
        result = CliRunner().invoke(cli, [name, "--help"])
        assert result.exit_code == 0
        assert result.output


def test_a_refusal_of_a_create_has_its_text_and_status(engine: FakeEngine) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return problem(500, "rpc error: code = Unknown desc = constraint expected one operator from ==, !=")

    engine.overrides[("POST", "/services/create")] = refuse
    assert refused(engine, "service", "create", "--constraint", "bad", "web") == (
        "Error response from daemon: rpc error: code = Unknown desc = constraint expected one operator from ==, !="
    )


def start(engine: FakeEngine, *arguments: str, **more: int) -> subprocess.Popen[bytes]:
    code = "from swarmtui.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "-H", str(engine.address), *arguments],
        stdout=more.get("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def test_ctrl_c_leaves_the_wait_and_says_that_the_change_goes_on(engine: FakeEngine) -> None:
    engine.orchestrate = lambda service: None
    with start(engine, "service", "create", "--name", "web", "web:1") as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().decode() in engine.tables["services"]
        assert process.stdout.readline() == b"create web\n"
        assert b"0 out of 1" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"the change is made and goes on" in errors
    assert b"Traceback" not in errors


def test_a_reader_that_goes_away_is_no_error(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    engine.put("tasks", make_task("t1", "s1", 1))
    line = log_frame("2026-11-21T09:25:43.7Z", "t1", b"x" * 1000 + b"\n")
    engine.log_chunks["s1"] = [line * 2000]
    with start(engine, "logs", "web") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
        process.wait(20)
    assert errors == b""
    assert process.returncode == 141


def test_control_sequences_of_a_log_do_not_reach_the_terminal(engine: FakeEngine) -> None:
    engine.put("services", make_service("s1", "web"))
    engine.put("tasks", make_task("t1", "s1", 1))
    engine.log_chunks["s1"] = [log_frame("2026-11-21T09:25:43.7Z", "t1", b"\x1b]0;owned\x07red\x1b[31m\n")]
    ours, theirs = pty.openpty()
    try:
        with start(engine, "logs", "web", stdout=theirs) as process:
            process.wait(20)
        shown = b""
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 4096)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"^[]0;owned^Gred^[[31m" in shown
    assert b"\x1b" not in shown
    assert sw(engine, "logs", "--raw", "web").stdout == "\x1b]0;owned\x07red\x1b[31m\n"
