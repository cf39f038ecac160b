"""What the suite browser shows: one value a row, and which rows are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kvmscope.reproducer.kut import ReportLine, Word, report_lines
from kvmscope.suite.runner import Job, Outcome
from kvmscope.suite.running import job_of
from kvmscope.suite.selection import Selected
from kvmscope.suite.tree import Tree

__all__ = ["Entry", "Filter", "State", "SuiteModel"]


class State(StrEnum):
    """Where an entry stands."""

    IDLE = "idle"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Filter(StrEnum):
    """Which entries are listed."""

    ALL = "all"
    BAD = "failed"
    PASSED = "passed"
    SKIPPED = "skipped"
    OPEN = "not run"


@dataclass(slots=True)
class Entry:
    """One entry of the configuration, and what came of it."""

    selected: Selected
    job: Job
    state: State = State.IDLE
    outcome: Outcome | None = None
    output: bytearray = field(default_factory=bytearray)
    """Serial output of the run that goes on, or of the last one."""

    @property
    def name(self) -> str:
        """As the configuration has it."""
        return self.selected.entry.name

    @property
    def manual(self) -> bool:
        """It is run only when somebody asks for it by name."""
        return "nodefault" in self.selected.entry.groups

    @property
    def word(self) -> Word | None:
        """The verdict; None while there is none."""
        if self.outcome is not None and self.state is State.DONE:
            return self.outcome.word
        return Word.SKIP if self.selected.skip else None

    @property
    def lines(self) -> tuple[ReportLine, ...]:
        """Checks reported so far."""
        if self.outcome is not None and self.state is State.DONE:
            return self.outcome.lines
        return report_lines(bytes(self.output))


class SuiteModel:
    """All entries, in the configuration's order."""

    def __init__(self, tree: Tree, chosen: Sequence[Selected]) -> None:
        self.tree = tree
        self.entries = [Entry(selected, job_of(tree, selected)) for selected in chosen]
        self.filter = Filter.ALL
        self.needle = ""
        """Text that a listed entry's name, file or groups must have."""
        self._places = {id(entry.job): index for index, entry in enumerate(self.entries)}

    def of(self, job: Job) -> Entry:
        """The entry of a job."""
        return self.entries[self._places[id(job)]]

    @property
    def shown(self) -> list[int]:
        """Numbers of the entries that the filter lets through."""
        return [index for index, entry in enumerate(self.entries) if self._is_shown(entry)]

    def _is_shown(self, entry: Entry) -> bool:
        if self.needle:
            about = entry.selected.entry
            text = " ".join((about.name, about.file.partition(".")[0], *about.groups)).lower()
            if not all(word in text for word in self.needle.lower().split()):
                return False
        word = entry.word
        match self.filter:
            case Filter.BAD:
                return word is not None and word.bad
            case Filter.PASSED:
                return word is Word.PASS
            case Filter.SKIPPED:
                return word is Word.SKIP
            case Filter.OPEN:
                return word is None
        return True

    def to_run(self, numbers: Sequence[int], *, manual: bool = True) -> list[Job]:
        """The jobs of those entries that can be run and are not about to be; they wait from now on.

        Without ``manual``, those that are marked as manual runs are left out.
        """
        jobs = []
        for number in numbers:
            entry = self.entries[number]
            if entry.manual and not manual:
                continue
            if not entry.selected.skip and entry.state in (State.IDLE, State.DONE):
                entry.state = State.WAITING
                jobs.append(entry.job)
        return jobs

    def began(self, job: Job) -> None:
        """An entry's run has begun."""
        entry = self.of(job)
        entry.state, entry.outcome = State.RUNNING, None
        entry.output.clear()

    def printed(self, job: Job, data: bytes) -> None:
        """A running entry printed something."""
        self.of(job).output += data

    def done(self, job: Job, outcome: Outcome) -> None:
        """An entry's run is over."""
        entry = self.of(job)
        entry.state, entry.outcome = State.DONE, outcome
        entry.output[:] = outcome.output

    def stopped(self) -> None:
        """Nothing runs or waits any more."""
        for entry in self.entries:
            if entry.state in (State.WAITING, State.RUNNING):
                entry.state = State.DONE if entry.outcome is not None else State.IDLE

    def counts(self) -> list[tuple[str, int]]:
        """(word, how many) for the header: ``passed``, ``failed``, ``skipped``, ``running``, ``to run``."""
        words = Counter(entry.word for entry in self.entries)
        states = Counter(entry.state for entry in self.entries)
        busy = states[State.RUNNING] + states[State.WAITING]
        pairs = [
            ("passed", words[Word.PASS]),
            ("failed", words[Word.FAIL] + words[Word.ERROR]),
            ("skipped", words[Word.SKIP]),
            ("running", states[State.RUNNING]),
            ("waiting", states[State.WAITING]),
            ("to run", words[None] - busy),
        ]
        return [(word, number) for word, number in pairs if number > 0]
