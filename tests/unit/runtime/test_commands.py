"""Shell commands: a terminal, live output, questions, interrupts, and background processes that live on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from minicolab_runtime import commands, pip_hint
from support.patience import PATIENCE, Stopwatch, until
from tests.unit.runtime.harness import Runtime, Socket, text_of


def collected(command: str, asker: commands.Asker | None = None) -> tuple[int, str]:
    out: list[str] = []
    status = commands.run(command, out.append, asker)
    return status, "".join(out)


def test_output_and_exit_status_come_back() -> None:
    assert collected("echo a; echo b >&2; exit 3") == (3, "a\nb\n")


def test_a_command_believes_that_it_has_a_terminal() -> None:
    assert collected("test -t 0 && test -t 1 && stty size") == (0, "24 100\n")


def test_carriage_returns_reach_the_page_and_line_ends_are_plain() -> None:
    assert collected(r"printf '10%%\r20%%\r\ndone\n'") == (0, "10%\r20%\ndone\n")


def test_text_cut_inside_a_character_is_put_together_again() -> None:
    assert collected(r"printf '\xc3'; sleep 0.2; printf '\xa9\n'") == (0, "é\n")


def test_bytes_that_are_not_text_do_not_stop_the_command() -> None:
    assert collected(r"printf '\xff\xfe'; exit 2") == (2, "\ufffd\ufffd")


def test_large_output_is_complete() -> None:
    status, text = collected("seq 1 50000")
    assert status == 0
    assert text == "".join(f"{n}\n" for n in range(1, 50001))


class OneAnswer:
    """A person who answers each question with the next line."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.asked: list[bool] = []

    def begin(self, password: bool) -> None:
        self.asked.append(password)

    def poll(self) -> str | None:
        return self.lines.pop(0)


@pytest.mark.parametrize(
    ("command", "password", "said"),
    [
        ("read -p 'name? ' x; echo hello $x", False, "name? hello Ada\n"),
        ("python3 -c \"print('hello', input('name? '))\"", False, "name? hello Ada\n"),
        ('python3 -c "import getpass; print(len(getpass.getpass()))"', True, "3\n"),
    ],
)
def test_a_question_is_noticed_and_answered(command: str, password: bool, said: str) -> None:
    person = OneAnswer("Ada")
    status, text = collected(command, person)
    assert status == 0, text
    assert text.replace("\r\n", "\n").endswith(said)
    assert person.asked == [password]


def test_a_quiet_command_that_reads_nothing_is_not_taken_for_a_question() -> None:
    person = OneAnswer()
    assert collected("sleep 0.8; echo ok", person) == (0, "ok\n")
    assert person.asked == []


def test_an_interrupt_stops_a_command_even_one_that_ignores_it() -> None:
    out: list[str] = []

    def write(text: str) -> None:
        out.append(text)
        if "begun" in text:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for command, within in (
            ("echo begun; sleep 60", 2.0),
            ("trap '' INT; echo begun; sleep 60 & wait; sleep 60", 7.5),
        ):
            out.clear()
            with Stopwatch() as watch:
                status = commands.run(command, write, None)
            assert watch.seconds < within
            assert status != 0
            assert "^C" in "".join(out)
    finally:
        signal.signal(signal.SIGINT, previous)


def test_a_background_process_outlives_its_command_and_may_still_print(tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    late = f"until [ -e {go} ]; do sleep 0.02; done; echo late; echo later && touch {done}"
    status, _ = collected(f"({late}) &")  # returns, though what it left behind waits to be told
    assert status == 0
    go.touch()
    until(done.exists, "printing after the command ended must not fail")


@pytest.mark.parametrize(
    ("command", "is_install"),
    [
        ("pip install -q matplotlib-venn", True),
        ("cd /tmp && pip3 install numpy", True),
        ("python -m pip install x", True),
        ("uv pip install x", True),
        ("pip uninstall -y x", True),
        ("pip list", False),
        ("echo pipeline", False),
        ("apt install pip", False),
    ],
)
def test_pip_installs_are_recognised(command: str, is_install: bool) -> None:
    assert pip_hint.is_install(command) is is_install


def test_only_changed_packages_that_are_imported_call_for_a_restart() -> None:
    now = pip_hint.installed()
    assert pip_hint.stale_imports(now, now) == []
    assert pip_hint.stale_imports({**now, "pytest": "0.1"}, now) == ["_pytest", "py", "pytest"]
    assert pip_hint.stale_imports(now, {**now, "new-package": "1.0"}) == []


async def test_a_shell_command_runs_in_the_kernel_and_asks_below_the_cell(page: Socket) -> None:
    running = await page.execute("!echo start; read -p 'name? ' x; echo hello $x\nprint(_exit_code)")
    request = await page.until(lambda m: m["msg_type"] == "input_request")
    assert request["parent_header"]["msg_id"] == running
    await page.send("input_reply", {"value": "Ada", "status": "ok"}, channel="stdin")
    assert "hello Ada\n0\n" in text_of(await page.result(running))


async def test_shell_variables_expand_and_output_can_be_captured(page: Socket) -> None:
    code = "name = 'x y'\n!echo '{name}' $name\nlines = !echo one; echo two\nprint(lines)"
    assert text_of(await page.result(await page.execute(code))) == "x y x y\n['one', 'two']\n"


async def test_interrupting_the_cell_interrupts_the_command(runtime: Runtime, page: Socket) -> None:
    running = await page.execute("!echo begun; sleep 60\nprint('status', _exit_code)")
    await page.until(lambda m: m["msg_type"] == "stream" and "begun" in m["content"]["text"])
    kernels = [k["id"] for k in await runtime.json("api/kernels") if k["execution_state"] == "busy"]
    for kernel_id in kernels:
        await runtime.json(f"api/kernels/{kernel_id}/interrupt", "POST")
    async with asyncio.timeout(PATIENCE):
        said = text_of(await page.result(running))
    assert "^C" in said
    assert "status -2" in said or "status 130" in said


async def test_shell_cells_fail_like_bash_unless_told_not_to(page: Socket) -> None:
    messages = await page.result(await page.execute("%%shell\necho out\nfalse"))
    error = next(m for m in messages if m["msg_type"] == "error")
    assert error["content"]["ename"] == "CalledProcessError"
    assert text_of(messages) == "out\n"
    assert not [
        m
        for m in await page.result(await page.execute("%%shell --ignore-errors\nfalse"))
        if m["msg_type"] == "error"
    ]
    code = "r = %shell echo hi\nprint(r.returncode, repr(r.output))"
    assert text_of(await page.result(await page.execute(code))) == "hi\n0 'hi\\n'\n"


async def test_tensorflow_version_says_what_colab_says(page: Socket) -> None:
    said = "Colab only includes TensorFlow 2.x; %tensorflow_version has no effect.\n"
    for line in ("%tensorflow_version 2.x", "%tensorflow_version"):
        assert text_of(await page.result(await page.execute(line))) == said
    messages = await page.result(await page.execute("%tensorflow_version 1.x"))
    error = next(m["content"] for m in messages if m["msg_type"] == "error")
    assert (error["ename"], error["evalue"]) == ("ValueError", "Tensorflow 1 is unsupported in Colab.")


async def test_a_failed_import_says_how_to_install(page: Socket) -> None:
    messages = await page.result(await page.execute("import no_such_package"))
    error = next(m["content"] for m in messages if m["msg_type"] == "error")
    assert error["ename"] == "ModuleNotFoundError"
    assert "!pip or !apt" in "\n".join(error["traceback"])


async def test_pip_is_this_environments_pip(page: Socket) -> None:
    said = text_of(await page.result(await page.execute("%pip --version\n!pip --version")))
    first, second = said.strip().splitlines()
    assert first == second
    assert "python3.1" in first or "(python 3" in first
