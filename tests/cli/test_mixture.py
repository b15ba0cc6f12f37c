"""``picollm mixture``: shares by rows and by what the loss sees, the same batches everywhere, bad data."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from picollm import Tokenizer
from picollm.chat.format import ChatFormat
from picollm.cli.main import main
from picollm.cli.mixture import summary
from picollm.data.check.words import split_words
from picollm.data.mixture import CurriculumStage, Source
from picollm.data.rows import load_rows
from picollm.errors import DataError
from picollm.recipes import conversations
from picollm.recipes.config import Recipe, SftRecipe, load_recipe
from picollm.recipes.conversations import Reading, evaluation_tasks, open_source, read_mixture
from picollm.train.batches import Batches
from picollm.train.examples import Examples

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


@pytest.fixture(scope="module")
def fmt() -> ChatFormat:
    """Return a format on bytes: no merges, so no training of a tokenizer can change an id."""
    special = ChatFormat.required_tokens("picollm")
    return ChatFormat.named("picollm", Tokenizer.train(["a"], 256 + len(special), special))


def recipe_of(*sources: Source, **changes: object) -> Recipe:
    return Recipe(mixture=sources, sft=SftRecipe(max_tokens=400), **changes)  # type: ignore[arg-type]


def read(
    recipe: Recipe, fmt: ChatFormat, cache: Path, root: Path | None = None, **options: object
) -> Reading:
    tasks = [open_source(source, source.split, recipe, root) for source in recipe.mixture]
    return read_mixture(recipe, tasks, fmt, recipe.sft.max_tokens, cache, **options)  # type: ignore[arg-type]


SMALL = recipe_of(
    Source("smoltalk", limit=300), Source("mmlu", limit=80), Source("spelling", limit=60, weight=2.0)
)


def test_what_is_kept_on_disk_is_what_rendering_gives(fmt: ChatFormat, tmp_path: Path) -> None:
    reading, memory = read(SMALL, fmt, tmp_path), Examples()
    for source in SMALL.mixture:
        for conversation in open_source(source, "train", SMALL, None):
            rendered = fmt.render_conversation(conversation)
            if len(rendered.ids) <= SMALL.sft.max_tokens:
                memory.append(rendered, source.label)
    assert reading.examples.digest == memory.digest
    stored = reading.examples
    assert np.array_equal(stored.costs, memory.costs) and stored.sources == memory.sources
    for index in (0, 1, 299, len(memory) - 1):
        assert np.array_equal(stored.ids(index), memory.ids(index))
        assert np.array_equal(stored.mask(index), memory.mask(index))
    assert Batches(stored, 1000, 1).digest == Batches(memory, 1000, 1).digest


def test_shares_by_rows_and_by_supervised_tokens_are_different_things(
    fmt: ChatFormat, tmp_path: Path
) -> None:
    document = summary(SMALL, fmt, read(SMALL, fmt, tmp_path))
    mmlu = document["sources"][1]
    assert mmlu["seen_supervised_tokens"] == 2 * 80 and mmlu["share_of_examples"] > 0.15
    assert mmlu["share_of_supervised_tokens"] < 0.02
    for name in ("examples", "tokens", "supervised_tokens"):
        assert sum(source[f"share_of_{name}"] for source in document["sources"]) == pytest.approx(1)
    tenth = dataclasses.replace(SMALL.mixture[1], share=0.1)
    by_tokens = dataclasses.replace(
        SMALL,
        mixture=(SMALL.mixture[0], tenth),
        sft=dataclasses.replace(SMALL.sft, shares="supervised_tokens"),
    )
    shares = summary(by_tokens, fmt, read(by_tokens, fmt, tmp_path))["sources"]
    assert shares[1]["share_of_supervised_tokens"] == pytest.approx(0.1, abs=0.01) and shares[1]["epochs"] > 5


def test_the_first_batches_of_the_default_mixture_never_change(fmt: ChatFormat, tmp_path: Path) -> None:
    default = load_recipe(CONFIGS / "pico-cpu.toml")
    # Weights are tuned now and then, and identity, which is also in joined conversations, is pinned by its
    # manifest: neither is held fast here.
    sources = [
        dataclasses.replace(source, limit=40, weight=1.5)
        for source in default.mixture
        if source.task not in ("identity", "joined")
    ]
    small = dataclasses.replace(default, mixture=tuple(sources))
    reading = read(small, fmt, tmp_path)
    stream = Batches(reading.examples, 1024, small.seed, reading.order(small))
    flat = [
        tensor.numpy() for i in range(4) for b in [stream[i]] for tensor in (b.ids, b.targets, b.positions)
    ]
    found = hashlib.sha256(b"".join(array.tobytes() for array in flat)).hexdigest()
    assert found == GOLDEN, f"the order or the mixture changed; if that is what you want, GOLDEN = {found!r}"


GOLDEN = "e3e772f624d2845320753ffe60d29fbd7b5b354b88a202976fdb8a5047041f13"


def test_a_curriculum_is_epochs_of_different_sources(fmt: ChatFormat, tmp_path: Path) -> None:
    stages = (
        CurriculumStage("talk", ("smoltalk",)),
        CurriculumStage("rest", ("mmlu", "spelling"), replay=0.2),
    )
    recipe = dataclasses.replace(SMALL, stage=stages)
    reading = read(recipe, fmt, tmp_path)
    stream = Batches(reading.examples, 2000, recipe.seed, reading.order(recipe))
    sources = [
        {reading.examples.source(int(i)) for i in stream.members(n)} for n in range(stream.num_batches(2))
    ]
    first = stream.num_batches(1)
    assert set.union(*sources[:first]) == {"smoltalk"}
    assert set.union(*sources[first:]) == {"smoltalk", "mmlu", "spelling"}


def test_two_workers_render_what_one_does(fmt: ChatFormat, tmp_path: Path) -> None:
    one, two = (read(SMALL, fmt, tmp_path / str(n), workers=n, evaluations=[]) for n in (1, 2))
    assert one.examples.digest == two.examples.digest and one.provenance == two.provenance


def test_the_cache_is_used_and_a_damaged_or_foreign_one_is_not(
    fmt: ChatFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe_of(Source("spelling", limit=30))
    before = read(small, fmt, tmp_path).examples.digest
    (shard,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    written = (shard / "ids.bin").stat().st_mtime_ns
    assert read(small, fmt, tmp_path).examples.digest == before
    assert (shard / "ids.bin").stat().st_mtime_ns == written
    (shard / "mask.bin").write_bytes(b"\1" + (shard / "mask.bin").read_bytes()[1:])
    assert read(small, fmt, tmp_path).examples.digest == before
    monkeypatch.setattr(conversations, "_code", lambda: "other code")
    read(small, fmt, tmp_path)
    tokenizer = fmt.tokenizer.with_special_tokens(ChatFormat.required_tokens("chatml"))
    read(small, ChatFormat.named("chatml", tokenizer), tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_two_at_once_share_a_cache(fmt: ChatFormat, tmp_path: Path) -> None:
    small, cache = recipe_of(Source("spelling", limit=40), Source("smoltalk", limit=40)), tmp_path / "cache"
    with ThreadPoolExecutor(2) as both:  # the lock is held by an open file, in threads as in processes
        digests = {job.result() for job in [both.submit(_digest, small, fmt, cache) for _ in range(2)]}
    kept = {path.name for path in cache.iterdir()}
    assert len(kept) == 3 and "lock" in kept
    assert digests == {_digest(small, fmt, tmp_path / "alone")}


def _digest(recipe: Recipe, fmt: ChatFormat, cache: Path) -> str:
    return read(recipe, fmt, cache).examples.digest


def test_test_rows_in_training_data_are_counted(fmt: ChatFormat, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "gsm8k" / "main").mkdir(parents=True)
    question = (
        "A baker has twelve boxes with six rolls each and sells half of them before noon. How many are left?"
    )
    rows = [{"question": f"{question} Say {n}.", "answer": f"He has {n}.\n#### {n}"} for n in range(3)]
    (root / "gsm8k" / "main" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [
        {"role": "user", "content": rows[1]["question"]},
        {"role": "assistant", "content": rows[1]["answer"]},
    ]
    (root / "talks.jsonl").write_text(
        "".join(json.dumps(t) + "\n" for t in [{"messages": told}, *[TALK] * 8])
    )
    recipe = recipe_of(Source("jsonl", location="talks.jsonl"))
    evaluations = evaluation_tasks(recipe, root)
    assert [task.name for task in evaluations] == ["identity", "gsm8k", "spelling", "spelling_bee", "facts"]
    (found,) = read(recipe, fmt, tmp_path / "cache", root, evaluations=evaluations).provenance
    (overlap,) = found["overlap"]
    assert (overlap["file"], overlap["rows"], overlap["whole"], overlap["texts"]) == ("gsm8k", 3, 1, 1)
    assert overlap["grams"] == 3 and found["compared_with"][0] == "identity"


def test_the_record_says_which_files_and_how_many_rows_each_step_left(
    fmt: ChatFormat, tmp_path: Path
) -> None:
    talks = [{**TALK, "source": "ab"[n % 2]} for n in range(100)]
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    source = Source("smoltalk", location="talks.jsonl", filter={"source": "a"}, limit=20, name="mine")
    (found,) = read(recipe_of(source), fmt, tmp_path / "cache", tmp_path).provenance
    assert found["steps"] == {"all": 100, "train": 98, "filter": 50, "limit": 20}
    assert found["files"] == {"talks.jsonl": found["sha256"]} and found["name"] == "mine"
    pinned = dataclasses.replace(source, sha256=found["sha256"])
    assert len(open_source(pinned, "train", recipe_of(pinned), tmp_path)) == 20
    with pytest.raises(DataError, match=r"talks\.jsonl changed: its sha256 is .*, the recipe pins 0123"):
        wrong = dataclasses.replace(source, sha256="0123")
        open_source(wrong, "train", recipe_of(wrong), tmp_path)


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _wrong_row(root: Path) -> None:
    (root / "talks.jsonl").write_bytes(_lines(TALK) * 31_007 + _lines({"messages": "Hi"}))


def _twice(root: Path) -> None:
    (root / "talks.jsonl").write_bytes(_lines(TALK) + b'{"messages": [], "messages": []}\n')


def _cut_gzip(root: Path) -> None:
    (root / "talks.jsonl").write_bytes(b"")
    (root / "talks.jsonl.gz").write_bytes(gzip.compress(_lines(TALK) * 3000)[:-9])


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "missing": (lambda root: None, "talks.jsonl", "cannot read"),
    "empty": (lambda root: (root / "talks.jsonl").write_bytes(b""), "talks.jsonl", "is empty (0 bytes)"),
    "cut": (_cut_gzip, "talks.jsonl.gz", "ends in the middle of its gzip stream"),
    "schema": (_wrong_row, "talks.jsonl", "talks.jsonl, row 31007: 'messages' is 'Hi'; expected list"),
    "keys": (_twice, "talks.jsonl", "row 1: line 2, the key 'messages' occurs twice"),
    "utf16": (
        lambda root: (root / "talks.jsonl").write_bytes(_lines(TALK).decode().encode("utf-16")),
        "talks.jsonl",
        "is UTF-16; expected UTF-8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_named_in_one_line_and_leave_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, location, said = BAD[name]
    monkeypatch.setenv("PICOLLM_HOME", str(tmp_path / "home"))
    spoil(tmp_path)
    config = tmp_path / "recipe.toml"
    config.write_text(f'[[mixture]]\ntask = "smoltalk"\nlocation = "{location}"\n')
    assert main(["mixture", "show", str(config), "--data-root", str(tmp_path)]) in (2, 3)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("picollm: ") and said in last
    assert not [path for path in (tmp_path / "home").glob("cache/*") if path.is_dir()]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf" + _lines(TALK), _lines(TALK).replace(b"\n", b"\r\n")])
def test_marks_and_line_ends_change_no_token(data: bytes, fmt: ChatFormat, tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").write_bytes(_lines(TALK))
    (tmp_path / "other.jsonl").write_bytes(data)
    plain, other = (
        read(recipe_of(Source("jsonl", location=name)), fmt, tmp_path / "cache", tmp_path).examples.digest
        for name in ("plain.jsonl", "other.jsonl")
    )
    assert plain == other


def test_show_and_digest_give_programs_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOLLM_HOME", str(tmp_path))
    config = tmp_path / "recipe.toml"
    config.write_text('[[mixture]]\ntask = "mmlu"\nlimit = 50\nwhy = "letters"\n')
    assert main(["mixture", "show", str(config), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["sources"][0]["why"] == "letters" and document["epoch"]["supervised_tokens"] == 100
    assert "█" in shown.err and document["sources"][0]["sha256"] in shown.err
    hashes = []
    for _ in range(2):
        assert main(["mixture", "digest", str(config), "--json", "--batches", "2"]) == 0
        hashes.append(json.loads(capsys.readouterr().out))
    assert hashes[0] == hashes[1] and hashes[0]["examples"] == document["examples_sha256"]


def test_published_layouts_of_chat_and_socratic_word_problems_are_sources(
    fmt: ChatFormat, tmp_path: Path
) -> None:
    rows = {
        "dolly": {"instruction": "Say hi.", "context": "", "response": "Hi.", "category": "x"},
        "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        "oasst": {**TALK, "message_tree_id": "1", "lang": "en"},
    }
    sums = (
        "How many pens? ** He has 3*4=<<3*4=12>>12 pens.\nHow many are left? ** 12-2=<<12-2=10>>10.\n#### 10"
    )
    for name, row in rows.items():
        (tmp_path / f"{name}.jsonl").write_bytes(_lines(row))
    (tmp_path / "gsm8k" / "socratic").mkdir(parents=True)
    asked = {"question": "He buys 3 packs of 4 pens and loses 2.", "answer": sums}
    (tmp_path / "gsm8k" / "socratic" / "train.jsonl").write_bytes(_lines(asked))
    sources = [Source("smoltalk", location=f"{name}.jsonl", name=name) for name in rows]
    recipe = recipe_of(*sources, Source("gsm8k", location="gsm8k/socratic"))
    reading = read(recipe, fmt, tmp_path / "cache", tmp_path)
    assert [found["examples"] for found in reading.provenance] == [1, 1, 1, 1]
    last = open_source(recipe.mixture[3], "train", recipe, tmp_path)[0].messages[-1]
    assert [part.text for part in last.parts if part.type == "python"] == ["3*4", "12-2"]


def test_auxiliary_train_holds_questions_of_arc(shared_data: Path) -> None:
    words = [
        load_rows(shared_data / "ai2_arc" / name, split="train") for name in ("ARC-Easy", "ARC-Challenge")
    ]
    arc = {" ".join(split_words_of(row["question"])) for rows in words for row in rows}
    mixed = load_rows(shared_data / "mmlu" / "all", split="auxiliary_train_small")
    assert sum(" ".join(split_words_of(row["question"])) in arc for row in mixed) > 0.4 * len(mixed)


def split_words_of(text: str) -> list[str]:
    return [word.decode() for word in split_words(text)]
