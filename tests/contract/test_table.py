"""The table of many optimizers: whoever hangs or crashes stops nobody else, and shares add up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import thalweg.optim
from thalweg.testing import CLAUSES, Finding, Outcome, table
from thalweg.testing.peers import LIBRARIES, Job, Library, ours
from thalweg.testing.table import Row, Share, as_json, record, rows_of, run, tabulate

OF_THE_USER = '''
import ctypes, os, time, torch

class Good(torch.optim.SGD):
    pass

class Halves(torch.optim.SGD):
    """Spoils gradients, and prints."""
    def step(self, closure=None):
        print('["found", "closure", "pass", "a lie"]')
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(0.5)
        return super().step(closure)

class Hangs(torch.optim.SGD):
    """Only in load_state_dict."""
    def load_state_dict(self, state):
        time.sleep(1000)

class Crashes(torch.optim.SGD):
    def load_state_dict(self, state):
        ctypes.string_at(0)

class Leaves(torch.optim.SGD):
    def load_state_dict(self, state):
        os.write(2, b"no more of this\\n")
        os._exit(3)

class Dies(torch.optim.SGD):
    steps = 0
    def step(self, closure=None):
        self.steps += 1
        if self.steps > 2:
            os._exit(7)
        return super().step(closure)

class NeedsMore(torch.optim.SGD):
    def __init__(self, params, model):
        super().__init__(params)
'''
NAMES = ("trains", "resume in memory", "deepcopy", "gradients untouched", "closure")
CHOSEN = [clause for clause in CLAUSES if clause.name in NAMES]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """All the classes above, asked together; one hangs for its 4 seconds."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "optimizers_of_the_user.py").write_text(OF_THE_USER)
    names = ("Good", "Halves", "Hangs", "Crashes", "Leaves", "Dies", "NeedsMore", "Absent")
    jobs = [Job("mine", f"optimizers_of_the_user:{name}") for name in names]
    told: list[Row] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        environment = dict(os.environ)
        found = run(jobs, CHOSEN, processes=2, seconds=4.0, tell=told.append)
        assert dict(os.environ) == environment
    assert [row.method for row in found] == list(names)
    assert sorted(told, key=repr) == sorted(found, key=repr)
    return {row.method: row for row in found}


def outcomes(row: Row) -> list[str]:
    assert [f.clause for f in row.findings] == [clause.name for clause in CHOSEN]
    return [str(f.outcome) for f in row.findings]


def test_a_good_one(rows: dict[str, Row]) -> None:
    assert outcomes(rows["Good"]) == ["pass"] * 5
    assert rows["Good"].ok and rows["Good"].trouble is None


def test_a_broken_one_is_red_and_cannot_forge_answers(rows: dict[str, Row]) -> None:
    assert outcomes(rows["Halves"]) == ["pass", "pass", "pass", "fail", "pass"]
    assert "changed by" in rows["Halves"].report["gradients untouched"].detail
    assert rows["Halves"].report["closure"].detail != "a lie"
    assert not rows["Halves"].ok


def test_a_hanging_one_is_timed_out_and_asked_the_rest(rows: dict[str, Row]) -> None:
    row = rows["Hangs"]
    assert outcomes(row) == ["pass", "fail", "pass", "pass", "pass"]
    assert "no answer within 4 s" in row.report["resume in memory"].detail
    assert row.trouble == "resume in memory: no answer within 4 s"


def test_a_crashing_one_says_how_it_died(rows: dict[str, Row]) -> None:
    row = rows["Crashes"]
    assert outcomes(row) == ["pass", "fail", "pass", "pass", "pass"]
    assert row.trouble == "resume in memory: died of SIGSEGV"


def test_last_words_are_kept(rows: dict[str, Row]) -> None:
    assert rows["Leaves"].trouble == "resume in memory: exit code 3 (no more of this)"
    assert outcomes(rows["Leaves"]) == ["pass", "fail", "pass", "pass", "pass"]


def test_what_cannot_be_asked_is_left_out(rows: dict[str, Row]) -> None:
    for name, why in (("NeedsMore", "model"), ("Absent", "no attribute 'Absent'")):
        row = rows[name]
        assert not row.ok and row.findings == () and row.trouble is None
        assert row.left_out is not None and why in row.left_out


def test_after_two_stops_nothing_more_is_asked(rows: dict[str, Row]) -> None:
    row = rows["Dies"]
    assert outcomes(row) == ["fail", "fail"] + ["not applicable"] * 3
    assert "exit code 7" in row.report["trains"].detail
    assert "not asked" in row.report["closure"].detail


def test_no_process_outlives_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "starts_others.py").write_text(
        "import os, subprocess, torch\n"
        "class Starts(torch.optim.SGD):\n"
        "    def state_dict(self):\n"
        "        child = subprocess.Popen(['sleep', '1000'])\n"
        f"        with open({str(tmp_path / 'pids')!r}, 'a') as out:\n"
        "            print(child.pid, os.getpid(), os.getppid(), file=out)\n"
        "        child.wait()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def interrupted(row: Row) -> None:
        raise KeyboardInterrupt

    jobs = [Job("mine", "starts_others:Starts"), Job("torch.optim", "torch.optim:SGD")]
    pids = tmp_path / "pids"
    with pytest.raises(KeyboardInterrupt):
        run(jobs, CHOSEN, processes=2, tell=lambda row: wait_for(pids) and interrupted(row))
    for pid in map(int, pids.read_text().split()):
        assert gone(pid)


def wait_for(path: Path) -> bool:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; the kernel may take a moment."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_every_optimizer_of_the_house_is_asked() -> None:
    import torch

    public = [getattr(thalweg.optim, name) for name in thalweg.optim.__all__]
    classes = {
        x.__name__
        for x in public
        if isinstance(x, type) and issubclass(x, torch.optim.Optimizer) and hasattr(x, "rule")
    }
    assert classes <= {job.place.removeprefix("thalweg.optim:") for job in ours()}


def test_a_library_lists_its_optimizers() -> None:
    [torch_optim] = [library for library in LIBRARIES if library.name == "torch.optim"]
    places = {job.place for job in table.methods(torch_optim)}
    assert {"torch.optim:AdamW", "torch.optim:LBFGS", "torch.optim:Muon"} <= places
    assert "torch.optim:Optimizer" not in places


def test_a_library_that_is_not_there() -> None:
    absent = Library("nowhere", "no-such-distribution", "3.2", list)
    assert absent.version is None
    assert absent.install == "pip install 'no-such-distribution==3.2.*'"
    with pytest.raises(RuntimeError, match="nowhere cannot be imported"):
        table.methods(absent)


@given(st.lists(st.lists(st.sampled_from(list(Outcome)), min_size=3, max_size=3), max_size=12))
def test_shares_add_up(found: list[list[Outcome]]) -> None:
    names = ("closure", "pickle", "groups")
    rows = [
        Row("mine", str(i), "mine:A", tuple(map(Finding, names, outcomes, ["", "", ""])))
        for i, outcomes in enumerate(found)
    ]
    rows.append(Row("mine", "odd", "mine:B", left_out="needs a model"))
    shares = tabulate(rows)["mine"]
    for column, name in enumerate(names):
        got = [outcomes[column] for outcomes in found]
        share = shares.get(name, Share())
        assert share.held == got.count(Outcome.PASS) + got.count(Outcome.REFUSED)
        assert share.failed == got.count(Outcome.FAIL)
        assert share.asked == len(got) - got.count(Outcome.NOT_APPLICABLE)
        assert share.held + share.noted + share.failed == share.asked


def test_a_record_keeps_everything(rows: dict[str, Row]) -> None:
    text = as_json(record(rows.values(), CHOSEN, command="c", versions={"torch": "2"}))
    read = json.loads(text)
    assert rows_of(read) == list(rows.values())
    assert [c["statement"] for c in read["clauses"]] == [c.statement for c in CHOSEN]
    assert sum('"place"' in line for line in text.splitlines()) == len(rows)  # a line a method
    with pytest.raises(ValueError, match=r"schema must be 'thalweg.contract/1', got None"):
        rows_of({})


def test_an_empty_record_is_json() -> None:
    assert json.loads(as_json(record([], CHOSEN)))["rows"] == []


@pytest.mark.parametrize(("name", "value"), [("processes", 0), ("seconds", 0.0)])
def test_bad_numbers_are_told(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be"):
        run([], CHOSEN, **{name: value})  # type: ignore[arg-type]
