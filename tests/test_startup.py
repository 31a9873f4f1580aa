"""The start and end of a command."""

import errno
import functools
import gc
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import types

import pytest
from absl import app, flags

from tff_personalization import errors, startup

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "GRPC_VERBOSITY"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.parametrize("argv", [[], ["--rounds=3"], ["--verbosity=-1"], ["--verbosity", "-1"], ["--v=much"]])
def test_tensorflow_is_quiet_by_default(argv):
    startup.quiet(["program", *argv])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"


@pytest.mark.parametrize("argv", [["--verbosity=0"], ["--verbosity", "1"], ["-v=1"], ["--rounds=3", "--verbosity=1"]])
def test_verbosity_brings_its_messages_back(argv):
    startup.quiet(["program", *argv])
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ


@pytest.fixture(autouse=True)
def _ends_this_test_alone(monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)


def leave(error, capfd):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as left:
        startup.with_plain_errors(main)(["program"])
    return left.value.code, capfd.readouterr().err


def test_an_error_that_a_user_can_mend_is_one_line(capfd):
    assert leave(errors.UserError("--rounds=-1: give more."), capfd) == (1, "Error: --rounds=-1: give more.\n")


def test_a_name_from_a_file_can_neither_break_that_line_nor_direct_the_terminal(capfd):
    status, line = leave(errors.UserError("x.csv: column 'a\n\x1b[31mb\t\udcffü 1': remove it."), capfd)
    assert (status, line) == (1, "Error: x.csv: column 'a \\x1b[31mb \\udcffü 1': remove it.\n")


@pytest.mark.parametrize("arguments", [["--help"], ["docs/results/quick"]], ids=["help", "table"])
def test_a_reader_that_leaves_ends_it_silently(arguments):
    with subprocess.Popen(
        [sys.executable, "-m", "analysis.compare_runs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_another_broken_pipe_is_reported():
    with pytest.raises(BrokenPipeError), startup.plain_ends_of_pipes():
        raise BrokenPipeError


@pytest.mark.parametrize("use", ["", "print(tff.tensorflow.computation(lambda: 7)())"], ids=["imported", "computed"])
def test_a_program_that_imports_tff_ends_silently_and_so_does_tffs_own_worker(use):
    code = f"import tff_personalization, tensorflow_federated as tff; {use}"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        said, complained = process.communicate()  # it waits for the worker, which has the same pipes
    assert (said, complained, process.returncode) == ("7\n" if use else "", "", 0)


def test_a_full_disk_is_one_line_that_names_the_file(capfd):
    code, message = leave(OSError(errno.ENOSPC, "No space left on device", "runs/metrics.csv"), capfd)
    assert code == 1
    assert message.count("\n") == 1
    assert "runs/metrics.csv" in message


@pytest.mark.parametrize("number", [errno.EISDIR, errno.EACCES, errno.EROFS])
def test_another_error_of_the_file_system_is_one_line_that_names_the_file(number, capfd):
    code, message = leave(OSError(number, os.strerror(number), "runs/metrics.csv"), capfd)
    expected = f"Error: runs/metrics.csv: {os.strerror(number)}: see to that file, then start again.\n"
    assert (code, message) == (1, expected)


def test_out_of_memory_is_one_line(capfd):
    code, message = leave(MemoryError("Unable to allocate 3 GiB\nfor an array"), capfd)
    assert code == 1
    assert message.count("\n") == 1
    assert message.startswith("Error: memory ran out (Unable to allocate 3 GiB for an array)")
    assert "give fewer --cores; then run the same command again to resume" in message
    assert "--clients_per_call also helps, but starts a new run" in message


def test_no_memory_for_a_thread_is_one_line_too_and_no_other_runtime_error_is(capfd):
    code, message = leave(RuntimeError("can't start new thread"), capfd)
    assert (code, message.count("\n")) == (1, 1)
    assert message.startswith("Error: memory ran out (can't start new thread)")

    def main(argv):
        raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match="of another kind"):
        startup.with_plain_errors(main)(["program"])


def test_a_flag_file_that_is_not_text_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.flags"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(SystemExit) as left:
        startup.parse_flags(["program", f"--flagfile={path}"])
    assert left.value.code == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "--flagfile" in message


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_flag_file_that_a_windows_editor_wrote_is_read(tmp_path, monkeypatch, ends):
    path = tmp_path / "x.flags"
    path.write_bytes(f"--wörd=ä{ends}--number=2{ends}".encode("utf-8-sig"))
    values = flags.FlagValues()
    flags.DEFINE_string("wörd", "", "", flag_values=values)
    flags.DEFINE_integer("number", 1, "", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    startup.parse_flags(["program", f"--flagfile={path}"])
    assert (values["wörd"].value, values["number"].value) == ("ä", 2)


def test_a_signal_is_the_exit_status_that_a_shell_expects(capfd):
    code, message = leave(errors.Interrupted(15), capfd)
    assert code == 143
    assert "SIGTERM" in message


def test_other_errors_are_not_hidden():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        startup.with_plain_errors(main)(["program"])


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--no_such_flag_at_all", "--no_such_flag_at_all: there is no such flag (see --help)."),
        (f"--{3000 * 'x'}=1", f"--{38 * 'x'}…: there is no such flag (see --help)."),
        ("--verbosty=1", "--verbosty: there is no such flag (see --help). Did you mean --verbosity?"),
        ("--verbosity=much", "--verbosity=much: give a whole number (see --help)"),
        ("--logtostderr=much", "--logtostderr=much: give true or false (see --help)"),
        ("--flagfile=no/such.flags", "--flagfile=no/such.flags: No such file or directory (see --help)"),
    ],
)
def test_a_mistake_among_the_flags_is_one_plain_line(argument, line, capsys):
    with pytest.raises(SystemExit) as left:
        startup.parse_flags(["program", argument])
    assert (left.value.code, capsys.readouterr().err) == (1, f"Error: {line}\n")
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["program"])


def test_a_plugin_that_ends_the_program_is_named(capfd, monkeypatch):
    monkeypatch.setitem(startup.OF_PLUGINS, __file__, "mine")

    def main(argv):
        sys.exit("bye")

    with pytest.raises(SystemExit) as left:
        startup.with_plain_errors(main)(["program"])
    assert left.value.code == 1
    assert capfd.readouterr().err.splitlines()[-1] == "Error: --plugin=mine: SystemExit: bye"


def test_help_is_no_failure(capsys, monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_flag(app.HelpFlag(), values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(SystemExit) as left:
        startup.parse_flags(["program", "--help"])
    assert left.value.code == 0
    assert "Try --helpfull" in capsys.readouterr().out


def test_a_library_that_cannot_be_loaded_because_memory_ran_out_is_one_plain_line_and_another_is_not(capfd):
    with pytest.raises(SystemExit), startup.plain_memory_errors():
        raise ImportError("libx.so: failed to map segment from shared object")
    assert capfd.readouterr().err.startswith("Error: memory ran out (libx.so: failed to map segment")
    with pytest.raises(ImportError, match="no such module"), startup.plain_memory_errors():
        raise ImportError("no such module")


def test_without_memory_for_its_imports_the_program_ends_with_a_line():
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))

    command = [sys.executable, "run_experiment.py", "--rounds=1"]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert completed.returncode == 1
    assert completed.stderr.startswith("Error: memory ran out")
    assert len(completed.stderr.splitlines()) == 1


def test_consequences_of_no_memory_are_reported_as_out_of_memory_and_user_errors_are_not(capfd):
    with pytest.raises(SystemExit), startup.plain_memory_errors():
        raise TypeError("unsupported callable") from MemoryError()
    assert capfd.readouterr().err.startswith("Error: memory ran out (unsupported callable)")
    with pytest.raises(errors.UserError), startup.plain_memory_errors():
        raise errors.UserError("--client_data=x: too large.") from MemoryError()
    with pytest.raises(ValueError, match="of another kind"), startup.plain_memory_errors():
        raise ValueError("of another kind") from KeyError("x")


@pytest.mark.parametrize("hook", ["unraisablehook", "excepthook"])
def test_no_memory_where_nobody_can_catch_it_ends_the_program_and_another_error_does_not(hook, capfd, monkeypatch):
    owner = sys if hook == "unraisablehook" else threading
    heard = []
    monkeypatch.setattr(owner, hook, heard.append)
    with startup.plain_memory_errors():
        other = types.SimpleNamespace(exc_value=ValueError("of another kind"))
        getattr(owner, hook)(other)
        assert heard == [other]
        with pytest.raises(SystemExit) as left:
            getattr(owner, hook)(types.SimpleNamespace(exc_value=RuntimeError("can't start new thread")))
    assert left.value.code == 1
    assert capfd.readouterr().err.startswith("Error: memory ran out (can't start new thread)")
    getattr(owner, hook)(other)
    assert heard == [other, other]


def test_a_thread_without_memory_ends_the_program_that_waits_for_it():
    program = """
import threading
from tff_personalization import startup

def run():
    raise MemoryError

def wait_without_end(argv):
    threading.Thread(target=run).start()
    threading.Event().wait()

startup.with_plain_errors(wait_without_end)(["program"])
"""
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 1
    assert completed.stderr.startswith("Error: memory ran out (in Python)")
    assert len(completed.stderr.splitlines()) == 1


@pytest.mark.parametrize(("flag", "level"), [("--rounds=3", "3"), ("--verbosity=0", "None")])
def test_importing_the_package_silences_tensorflow_unless_asked_not_to(flag, level):
    code = "import os, tff_personalization; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    said = subprocess.run([sys.executable, "-c", code, flag], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == level


@pytest.mark.parametrize("enabled", [True, False])
def test_collections_of_garbage_are_as_before_after_those_that_were_left_out(enabled, monkeypatch):
    monkeypatch.setattr(gc, "isenabled", lambda: enabled)
    called = []
    for name in ("enable", "disable"):
        monkeypatch.setattr(gc, name, functools.partial(called.append, name))
    with pytest.raises(ZeroDivisionError), startup.without_collections():
        raise ZeroDivisionError
    assert called == (["disable", "enable"] if enabled else ["disable"])
