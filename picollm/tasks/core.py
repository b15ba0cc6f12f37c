"""CORE: twenty tasks in plain text that tell base models apart, with the settings they were published with.

The suite is that of DataComp-LM (Li et al. 2024, arXiv 2406.11794), whose tasks, few-shot counts and chance
levels come from the evaluation gauntlet of MosaicML's llm-foundry; SQuAD and CoQA, the other two, are left
out. A row is one of three kinds:

* **choice**: a query and several endings; the answer is the ending with the highest mean log-probability;
* **schema**: several beginnings and one ending; likewise, over the tokens of the ending;
* **text**: one ending, which greedy decoding must write token by token.

Solved examples of the same task stand in front, drawn by a function of task and row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal, NamedTuple

from picollm.data.rows import Rows, load_rows
from picollm.errors import DataError, InputError
from picollm.tasks.task import Task

PREFIX = "core/"
_DIRECTORY = "core/eval_data"
_BETWEEN_EXAMPLES = "\n"
_ANSWER = "\nAnswer: "


@dataclass(frozen=True)
class Setting:
    """How one task is asked: file, kind, number of examples, what precedes an ending, and chance level."""

    file: str
    kind: Literal["choice", "schema", "text"]
    num_examples: int
    delimiter: str = " "
    chance: float = 0.0


class Option(NamedTuple):
    """One way a text may go on: what the model reads, and the ending whose probability counts."""

    context: str
    ending: str


_KNOWLEDGE, _REASONING = "world_knowledge", "commonsense_reasoning"
_LANGUAGE, _SYMBOLS, _READING = "language_understanding", "symbolic_problem_solving", "reading_comprehension"

CORE = {
    "hellaswag_zeroshot": Setting(f"{_LANGUAGE}/hellaswag", "choice", 0, chance=0.25),
    "jeopardy": Setting(f"{_KNOWLEDGE}/jeopardy_all", "text", 10, _ANSWER),
    "bigbench_qa_wikidata": Setting(f"{_KNOWLEDGE}/bigbench_qa_wikidata", "text", 10),
    "arc_easy": Setting(f"{_KNOWLEDGE}/arc_easy", "choice", 10, _ANSWER, 0.25),
    "arc_challenge": Setting(f"{_KNOWLEDGE}/arc_challenge", "choice", 10, _ANSWER, 0.25),
    "copa": Setting(f"{_REASONING}/copa", "choice", 0, chance=0.5),
    "commonsense_qa": Setting(f"{_REASONING}/commonsense_qa", "choice", 10, chance=0.403),
    "piqa": Setting(f"{_REASONING}/piqa", "choice", 10, _ANSWER, 0.5),
    "openbook_qa": Setting(f"{_REASONING}/openbook_qa", "choice", 0, chance=0.25),
    "lambada_openai": Setting(f"{_LANGUAGE}/lambada_openai", "text", 0),
    "hellaswag": Setting(f"{_LANGUAGE}/hellaswag", "choice", 10, chance=0.25),
    "winograd": Setting(f"{_LANGUAGE}/winograd_wsc", "schema", 0, chance=0.5),
    "winogrande": Setting(f"{_LANGUAGE}/winogrande", "schema", 0, chance=0.5),
    "bigbench_dyck_languages": Setting(f"{_SYMBOLS}/bigbench_dyck_languages", "text", 10),
    "agi_eval_lsat_ar": Setting(f"{_SYMBOLS}/agi_eval_lsat_ar", "choice", 3, chance=0.25),
    "bigbench_cs_algorithms": Setting(f"{_SYMBOLS}/bigbench_cs_algorithms", "text", 10),
    "bigbench_operators": Setting(f"{_SYMBOLS}/bigbench_operators", "text", 10),
    "bigbench_repeat_copy_logic": Setting(f"{_SYMBOLS}/bigbench_repeat_copy_logic", "text", 10),
    "boolq": Setting(f"{_READING}/boolq", "choice", 10, _ANSWER, 0.62),
    "bigbench_language_identification": Setting(
        f"{_LANGUAGE}/bigbench_language_identification", "choice", 10, chance=0.25
    ),
}


class CoreTask(Task):
    """One task of the suite.

    Rows are ``{query, choices, gold}``, ``{context_options, continuation, gold}`` or ``{context,
    continuation}``.
    """

    scoring: ClassVar = "likelihood"

    def __init__(self, name: str, rows: Rows, setting: Setting) -> None:
        super().__init__(name, rows, "test")
        self.setting = setting
        self.num_examples = min(setting.num_examples, len(rows) - 1)

    def messages(self, index: int) -> list[dict[str, Any]]:
        """Return the right option as a question and its answer."""
        context, ending = self._options(index)[self.answer(index)]
        return [
            {"role": "user", "content": context},
            {"role": "assistant", "content": ending},
        ]

    def answer(self, index: int) -> int:
        """Return the place of the right one of ``options(index)``."""
        if self.setting.kind == "text":
            return 0
        gold = self.rows.field(index, "gold", int)
        num = len(self._options(index))
        if not 0 <= gold < num:
            raise DataError(f"{self.rows.where(index)}: 'gold' is {gold}; it has {num} options.")
        return gold

    def options(self, index: int, num_examples: int | None = None) -> list[Option]:
        """Return the options of row ``index`` behind ``num_examples`` solved rows (None: as published)."""
        num = self.num_examples if num_examples is None else num_examples
        # A longer list begins with the shorter one: what is left out is what stands first.
        others = Random(f"{self.name}/{index}").sample(range(len(self) - 1), self.num_examples)[:num]
        solved = [self._solved(other + (other >= index)) for other in reversed(others)]
        front = "".join(f"{example}{_BETWEEN_EXAMPLES}" for example in solved)
        return [
            Option(f"{front}{context}{self.setting.delimiter}", ending)
            for context, ending in self._options(index)
        ]

    def chance(self, index: int) -> float:
        """Return the published chance level."""
        return self.setting.chance

    def completion(self, index: int) -> str:
        """Return what the model reads before the right ending."""
        return self.options(index)[self.answer(index)].context

    def _solved(self, index: int) -> str:
        context, ending = self._options(index)[self.answer(index)]
        return f"{context}{self.setting.delimiter}{ending}"

    def _options(self, index: int) -> list[tuple[str, str]]:
        rows, kind = self.rows, self.setting.kind
        if kind == "text":
            return [(rows.field(index, "context", str).strip(), rows.field(index, "continuation", str))]
        many = rows.field(index, "choices" if kind == "choice" else "context_options", list)
        if not many or not all(isinstance(each, str) for each in many):
            raise DataError(f"{rows.where(index)}: its options are {many!r:.60}; expected a list of texts.")
        if kind == "choice":
            query = rows.field(index, "query", str)
            return [(query, ending) for ending in many]
        ending = rows.field(index, "continuation", str)
        return [(context, ending) for context in many]


def load_core(name: str, data_root: Path | None) -> CoreTask:
    """Return the task ``core/...`` on its rows below ``data_root``.

    Raises:
        InputError: No data root.
        DataError: The rows are missing or damaged.
    """
    if data_root is None:
        raise InputError(f"task {name!r} needs data: pass --data-root, a directory with {_DIRECTORY}.")
    setting = CORE[name.removeprefix(PREFIX)]
    return CoreTask(name, load_rows(data_root / _DIRECTORY / f"{setting.file}.jsonl"), setting)
