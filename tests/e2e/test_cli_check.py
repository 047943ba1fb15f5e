"""`splitbrain check` on good, bad and damaged files."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from harness.cli import main


def line(process, type_, f, value=None, **more):
    return json.dumps({"process": process, "type": type_, "f": f, "value": value} | more)


def history(tmp_path, *lines, name="history.jsonl"):
    """Number the lines and give them times, as a recorder does."""
    file = tmp_path / name
    numbered = [
        json.dumps({"index": i, "time_ns": i * 1000} | json.loads(text)) for i, text in enumerate(lines)
    ]
    file.write_text("\n".join(numbered) + "\n")
    return file


GOOD = (
    line(0, "invoke", "write", 1),
    line(0, "ok", "write", 1),
    line(1, "invoke", "read"),
    line(1, "ok", "read", 1),
)
STALE = (
    line(0, "invoke", "write", 1), line(0, "ok", "write", 1), line(0, "invoke", "write", 2), line(0, "ok", "write", 2),
    line(1, "invoke", "read"), line(1, "ok", "read", 1),
)  # fmt: skip


def check(capsys, *args):
    try:
        code = main(["check", *map(str, args)])
    except SystemExit as leave:
        code = leave.code
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(("lines", "code", "valid"), [(GOOD, 0, True), (STALE, 1, False)])
def test_verdicts(capsys, tmp_path, lines, code, valid):
    """Exit code and JSON agree."""
    got, out, _ = check(capsys, history(tmp_path, *lines), "--model", "register", "--json")
    assert got == code
    assert json.loads(out.splitlines()[-1])["valid"] is valid


def test_a_violation_is_explained_in_at_most_twenty_lines(capsys, tmp_path):
    """With the operations that no order allows."""
    _, out, _ = check(capsys, history(tmp_path, *STALE), "--model", "register")
    assert len(out.strip().splitlines()) <= 22  # a note about the model may precede
    assert "read" in out
    assert "write" in out


def test_edn_and_jepsen_logs_are_read(capsys, tmp_path):
    """As they are, comments and nemesis lines included."""
    edn = tmp_path / "h.edn"
    edn.write_text(
        "; a comment\n[{:process :nemesis, :type :info, :f :start}\n {:process 0, :type :invoke, :f :write, :value 3}\n"
        " {:process 0, :type :ok, :f :write, :value 3}\n {:process 1, :type :invoke, :f :read, :value nil}\n"
        " {:process 1, :type :ok, :f :read, :value 4}]\n"
    )
    assert check(capsys, edn, "--model", "cas-register")[0] == 1
    log = tmp_path / "h.log"
    log.write_text(
        "INFO  jepsen.util - 0\t:invoke\t:write\t3\nINFO  jepsen.util - 0\t:ok\t:write\t3\n"
        "INFO  jepsen.util - 1\t:invoke\t:read\tnil\nINFO  jepsen.util - 1\t:ok\t:read\t3\n"
    )
    assert check(capsys, log, "--model", "etcd-register")[0] == 0
    kv = tmp_path / "h.txt"
    kv.write_text(
        '{:process 0, :type :invoke, :f :append, :key "3", :value "x"}\n'
        '{:process 0, :type :ok, :f :append, :key "3", :value "x"}\n'
        '{:process 0, :type :invoke, :f :get, :key "3", :value nil}\n'
        '{:process 0, :type :ok, :f :get, :key "3", :value "y"}\n'
    )
    assert check(capsys, kv, "--model", "string-kv")[0] == 1


def test_the_initial_value_is_an_option(capsys, tmp_path):
    """A first read of 0 is right only where 0 is the first value."""
    file = history(tmp_path, line(0, "invoke", "read"), line(0, "ok", "read", 0))
    assert check(capsys, file, "--model", "cas-register", "--initial", "0")[0] == 0
    assert check(capsys, file, "--model", "cas-register", "--initial", "1")[0] == 1
    code, _, err = check(capsys, file, "--model", "cas-register", "--initial", "zero")
    assert (code, "not JSON" in err) == (254, True)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((line(0, "ok", "read", 1),), ["process 0", "invo"]),
        ((line(0, "invoke", "read"), line(0, "invoke", "read")), ["process 0", "invo"]),
        ((line(0, "shrug", "read"),), ["shrug"]),
    ],
)
def test_malformed_histories_are_named(capsys, tmp_path, lines, words):
    """One sentence that names the file and the process or value."""
    file = history(tmp_path, *lines)
    code, _, err = check(capsys, file, "--model", "register")
    assert code == 254
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert "history.jsonl" in err
    for word in words:
        assert word in err


def test_a_missing_file_and_an_unknown_model_are_named(capsys, tmp_path):
    """Exit 254, one sentence."""
    code, _, err = check(capsys, tmp_path / "none.jsonl")
    assert code == 254
    assert "none.jsonl" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = check(capsys, history(tmp_path, *GOOD), "--model", "abacus")
    assert code == 254
    assert "abacus" in err
    assert "cas-register" in err


def test_the_initial_value_is_for_checkers_too(capsys, tmp_path):
    file = tmp_path / "history.jsonl"
    file.write_text(
        '{"process":0,"type":"invoke","f":"read"}\n{"process":0,"type":"ok","f":"read","value":7}\n'
    )
    assert check(capsys, file, "--checker", "causal")[0] == 1
    assert check(capsys, file, "--checker", "causal", "--initial", "7")[0] == 0


def test_a_history_without_clients_is_unknown_whatever_it_is_checked_with(capsys, tmp_path):
    """Nothing was checked; the file itself is right."""
    header, note = '{"splitbrain":"history","version":1}', '{"process":"nemesis","type":"info","f":"kill"}'
    for text in (header, note, f"{header}\n{note}"):
        file = tmp_path / "history.jsonl"
        file.write_text(text + "\n")
        for options in ([], ["--model", "etcd-register"], ["--online"]):
            code, out, _ = check(capsys, file, *options)
            assert (code, "no client did anything in this history" in out) == (2, True), options


@pytest.mark.parametrize(("lines", "code"), [(GOOD, 254), (STALE, 1)])
def test_a_truncated_last_line_keeps_what_came_before(capsys, tmp_path, lines, code):
    """The intact part is checked, and a part is never called valid."""
    file = history(tmp_path, *lines, name="cut.jsonl")
    file.write_text(file.read_text() + '{"index":99,"time_ns":99000,"proce')
    got, out, err = check(capsys, file, "--model", "register", "--json")
    assert got == code
    assert json.loads(out.splitlines()[-1])["valid"] == (False if code == 1 else "unknown")
    assert "line" in err
    _, out, _ = check(capsys, file, "--model", "register")
    assert out.startswith("invalid: " if code == 1 else "unknown: ")
    got, _, err = check(capsys, tmp_path, "--model", "register", "--json")
    assert (got, ": 0 valid" in err) == (code, True)


def test_a_damaged_line_in_the_middle_is_named(capsys, tmp_path):
    """With its number."""
    file = history(tmp_path, *GOOD)
    lines = file.read_text().splitlines()
    lines[1] = lines[1][:20]
    file.write_text("\n".join(lines) + "\n")
    code, _, err = check(capsys, file, "--model", "register")
    assert code == 254
    assert "line 2" in err or ":2" in err


def test_a_directory(capsys, tmp_path):
    """Every history below it is checked, what is none is named, and the worst verdict leaves."""
    (tmp_path / "more").mkdir()
    history(tmp_path, *GOOD, name="good.jsonl")
    history(tmp_path / "more", *STALE, name="stale.jsonl")
    (tmp_path / "notes.txt").write_text("nothing to check\n")
    code, out, _ = check(capsys, tmp_path, "--model", "register", "--json")
    assert code == 1
    result = json.loads(out.splitlines()[-1])
    assert (result["valid"], result["invalid"], result["unknown"]) == (1, 1, 0)
    assert [file["file"].rsplit("/", 1)[1] for file in result["files"]] == ["good.jsonl", "stale.jsonl"]
    assert "notes.txt" in result["skipped"][0]


def test_a_directory_with_a_history_that_cannot_be_checked(capsys, tmp_path):
    """What has a fault is no pass, other than what is no history; a violation is more than either."""
    history(tmp_path, *GOOD, name="good.jsonl")
    (tmp_path / "plan.json").write_text('{\n  "splitbrain": "plan"\n}\n')
    (tmp_path / "results.edn").write_text("{:valid? true}\n")
    assert check(capsys, tmp_path)[0] == 0
    bad = history(tmp_path, line(0, "ok", "read", 1), name="bad.jsonl")
    for _ in range(2):  # what does not pair, then a line that is none
        code, out, _ = check(capsys, tmp_path)
        assert code == 254
        assert "could not be checked: bad.jsonl (" in out
        assert "skipped, since it is no history: plan.json (line 1" in out
        bad.write_text((tmp_path / "good.jsonl").read_text() + "{\n")
    history(tmp_path, *STALE, name="stale.jsonl")
    assert check(capsys, tmp_path)[0] == 1
    (tmp_path / "good.jsonl").write_text((tmp_path / "good.jsonl").read_text() + '{"inde')
    assert check(capsys, tmp_path)[0] == 1


def test_a_checker_of_other_histories(capsys, tmp_path, monkeypatch):
    """It does not know these operations: no pass, and no traceback. What there is not is named."""
    file = history(tmp_path, *GOOD)
    code, out, _ = check(capsys, file, "--checker", "session")
    assert (code, "[2..3] of process 1 was answered 1, no list" in out) == (1, True)
    code, out, _ = check(capsys, file, "--checker", "list-append")
    assert (code, "--checker rw-register is for that" in out) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr("checkers.catalogue.run_checker", lambda call, history: call + history)
        code, out, err = check(capsys, file, "--checker", "session")
    assert (code, "Traceback" in err) == (2, False)
    assert "the checker session failed with TypeError" in out
    assert "docs/workloads.md" in out
    for asked, says in (
        ("sesion", "did you mean 'session'"),
        ("session:x=1", "no option 'x'"),
        ("session:guarantees=y", "unknown session guarantee 'y'"),
    ):
        code, _, err = check(capsys, file, "--checker", asked)
        assert (code, says in err) == (254, True), asked


def test_a_note_is_told_once(capsys, tmp_path):
    """Whoever makes it."""
    file = history(tmp_path, *GOOD)
    file.write_text(file.read_text() + '{"inde')
    assert check(capsys, file)[1].count("is cut off") == 1
    assert check(capsys, file, "--checker", "causal")[1].count("is cut off") == 1


def test_a_directory_with_what_is_expected(capsys, tmp_path):
    """Then the exit code says whether it came true."""
    history(tmp_path, *GOOD, name="good.jsonl")
    history(tmp_path, *STALE, name="stale.jsonl")
    table = tmp_path / "table.tsv"
    rows = ["path\tmodel\tverdict", "good.jsonl\tregister initial=0\tlinearizable"]
    table.write_text("\n".join([*rows, "stale.jsonl\tregister\tnonlinearizable"]))
    assert check(capsys, tmp_path, "--expect", table)[0] == 0
    table.write_text("\n".join([*rows, "stale.jsonl\tregister\tlinearizable"]))
    code, out, _ = check(capsys, tmp_path, "--expect", table)
    assert code == 1
    assert "surprise: stale.jsonl: expected valid, found invalid" in out
    table.write_text("path\tverdict\n")
    code, _, err = check(capsys, tmp_path, "--expect", table)
    assert code == 254
    assert "it needs path, model, verdict" in err
    table.write_text("model\tverdict\tpath\nregister\tvalid\n")
    code, _, err = check(capsys, tmp_path, "--expect", table)
    assert (code, "is no row; give path, model" in err) == (254, True)


def test_a_table_as_editors_write_it(capsys, tmp_path):
    """With a mark at its start, other ends of lines and an empty line at its end; a fault is told before any check."""
    history(tmp_path, *GOOD, name="good.jsonl")
    table = tmp_path / "table.tsv"
    row = "good.jsonl\tregister initial=0\tvalid\r\n"
    table.write_bytes(f"\ufeffpath\tmodel\tverdict\r\n{row}\r\n".encode())
    assert check(capsys, tmp_path, "--expect", table)[0] == 0
    table.write_text(f"path\tmodel\tverdict\n{row}nonsense\n")
    code, out, err = check(capsys, tmp_path, "--expect", table)
    assert (code, out, "'nonsense' is no row" in err) == (254, "", True)
    table.write_text("path\tmodel\tverdict\n")
    code, _, err = check(capsys, tmp_path, "--expect", table)
    assert (code, "has no row; give one for each history" in err) == (254, True)


def test_a_directory_is_not_drawn(capsys, tmp_path):
    """It may hold many counterexamples."""
    history(tmp_path, *STALE, name="stale.jsonl")
    code, _, err = check(capsys, tmp_path, "--drawing", tmp_path / "why.svg")
    assert (code, "--drawing is for one history" in err) == (254, True)


def test_algorithm_and_budget(capsys, tmp_path):
    """An algorithm that does not fit, and a budget that is spent, are unknown with a remedy; nonsense is refused."""
    file = history(tmp_path, *(line(0, type_, "write", 1) for type_ in ("invoke", "ok") * 2))
    assert check(capsys, file, "--algorithm", "jit-bfs")[0] == 0
    code, out, _ = check(capsys, file, "--algorithm", "zones")
    assert code == 2
    assert "use --algorithm auto" in out
    code, _, err = check(capsys, file, "--seconds", "0")
    assert code == 254
    assert "--seconds is 0.0: give a number above 0" in err
    assert "--mib is 0: give a number above 0" in check(capsys, file, "--mib", "0")[2]


def test_a_command_imports_only_itself():
    """`check` must not pay for the simulator's imports, nor for numba's."""
    program = "import sys; from harness import cli; cli.parser(['check']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "harness.commands.check" in loaded
    assert not {"numba", "numpy", "networkx", "asyncio", "raft", "harness.commands.run"} & set(loaded)


def test_online(capsys, tmp_path, monkeypatch):
    """Line by line from a file or standard input; what is no register is refused."""
    good, stale = history(tmp_path, *GOOD, name="good.jsonl"), history(tmp_path, *STALE, name="stale.jsonl")
    assert check(capsys, good, "--online")[0] == 0
    code, out, _ = check(capsys, stale, "--online", "--json")
    assert code == 1
    assert json.loads(out)["algorithm"] == "zones-online"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stale.read_bytes())))
    assert check(capsys, "-", "--online")[0] == 1
    code, _, err = check(capsys, good, "--online", "--model", "stack")
    assert code == 254
    assert "--online checks registers" in err
    code, _, err = check(capsys, good, "--online", "--model", "regster")
    assert (code, "did you mean 'register'" in err) == (254, True)
    code, _, err = check(capsys, good, "--online", "--drawing", "x.svg", "--algorithm", "zones")
    assert (code, "not with --drawing, --algorithm" in err) == (254, True)
    (tmp_path / "bad.jsonl").write_text(good.read_text() + "{no\n")
    code, _, err = check(capsys, tmp_path / "bad.jsonl", "--online")
    assert code == 254
    assert "line 5" in err


OWN = """
from __future__ import annotations
from dataclasses import dataclass
from checkers import Inconsistent

@dataclass(frozen=True)
class State:
    value: int = 0

class Max:
    name = "max"
    def initial(self):
        return State()
    def step(self, state, operation):
        if operation.f == "write":
            return State(max(state.value, operation.argument))
        return state if operation.result == state.value else Inconsistent(f"the maximum is {state.value}")

class Asks:
    def __init__(self, size):
        pass

class Nameless:
    pass

ready = Max()
"""


def test_a_model_that_ends_the_program_is_no_pass(capsys, tmp_path):
    """A script without a guard calls sys.exit(0) when it is imported."""
    (tmp_path / "script.py").write_text("raise SystemExit(0)\n")
    ending = OWN.replace("return State()", "raise SystemExit(0)")
    (tmp_path / "ending.py").write_text(ending)
    good = history(tmp_path, *GOOD)
    code, _, err = check(capsys, good, "--model", f"{tmp_path}/script.py:Any")
    assert (code, "cannot be imported (SystemExit: 0)" in err) == (254, True)
    code, out, _ = check(capsys, good, "--model", f"{tmp_path}/ending.py:Max")
    assert (code, "initial() of the model max failed with SystemExit: 0" in out) == (2, True)


def test_a_model_may_import_what_stands_beside_it(capsys, tmp_path, monkeypatch):
    """As a program may, wherever it is called from."""
    (tmp_path / "beside_own.py").write_text(OWN)
    (tmp_path / "from_beside.py").write_text("from beside_own import Max\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert check(capsys, history(tmp_path, *GOOD), "--model", f"{tmp_path}/from_beside.py:Max")[0] == 0


def test_a_model_of_ones_own(capsys, tmp_path, monkeypatch):
    """From a file or a module; what is wrong with the place is a sentence."""
    (tmp_path / "own_models.py").write_text(OWN)
    (tmp_path / "crash_models.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    good, stale = history(tmp_path, *GOOD, name="good.jsonl"), history(tmp_path, *STALE, name="stale.jsonl")
    for place in ("own_models.py:Max", "own_models:Max", "own_models:ready", f"{tmp_path}/own_models.py:Max"):
        assert check(capsys, good, "--model", place)[0] == 0
    code, out, _ = check(capsys, stale, "--model", "own_models.py:Max")
    assert code == 1
    assert "the maximum is 2" in out
    for place, says in (
        ("own_models.py:Min", "has no Min"),
        ("own_models.py:", "give FILE.py:CLASS"),
        ("none.py:Max", "there is no file none.py"),
        ("no_such_module:Max", "cannot be imported (ModuleNotFoundError"),
        ("crash_models.py:Max", "cannot be imported (ZeroDivisionError"),
        ("own_models.py:Asks", "a class without arguments"),
        ("own_models.py:Nameless", "it has no name"),
    ):
        code, _, err = check(capsys, good, "--model", place)
        assert (code, says in err, len(err.splitlines())) == (254, True, 1), err
    code, _, err = check(capsys, good, "--model", "own_models.py:Max", "--initial", "3")
    assert (code, "initial() of its own" in err) == (254, True)
