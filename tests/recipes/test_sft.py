"""Fine-tuning: what is too long goes by the named rule and is counted, and wrong input is one line."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import runpy
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from picollm import Checkpoint, Conversation
from picollm.chat.format import ChatFormat
from picollm.cli.main import main
from picollm.data.mixture import CurriculumStage, Source
from picollm.errors import CheckpointError, ContextError, FormatMismatchError, InputError, UnavailableError
from picollm.model.lora_config import Lora
from picollm.recipes.config import Recipe, SftRecipe
from picollm.recipes.conversations import read_mixture
from picollm.recipes.sft import finetune
from picollm.recipes.stage import Stage
from picollm.tasks.registry import load_task
from picollm.train.config import TrainConfig

SIZES = [(3, 4), (20, 25), (2, 2), (1, 200), (9, 9)]  # words of question and answer


def _talk(sizes: list[tuple[int, int]], system: str | None = None) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    for question, answer in sizes:
        messages += [{"role": "user", "content": "why " * question}]
        messages += [{"role": "assistant", "content": "so " * answer}]
    return {"messages": messages}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    talks = [_talk(SIZES[:1]), _talk(SIZES, "be kind"), _talk([(1, 300)])]
    path.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    return path


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []
        from picollm.progress import SILENT

        self.bar = SILENT.bar

    def note(self, line: str) -> None:
        self.lines.append(line)


def _read(rows: Path, fmt: ChatFormat, too_long: str) -> tuple[Any, list[str]]:
    source, notes = Source("jsonl", str(rows)), Notes()
    task = load_task("jsonl", "train", location=str(rows))
    recipe = Recipe(mixture=(source,), sft=SftRecipe(too_long=too_long))
    reading = read_mixture(recipe, [task], fmt, 150, rows.parent / "cache", progress=notes)
    return reading, notes.lines


@pytest.fixture
def fmt(story: tuple[Path, Recipe]) -> ChatFormat:
    found = Checkpoint.load(story[0] / "sft").format
    assert found is not None
    return found


def test_longer_conversations_are_dropped_and_counted(rows: Path, fmt: ChatFormat) -> None:
    reading, notes = _read(rows, fmt, "drop")
    (counts,) = reading.provenance
    assert len(reading.examples) == 1
    assert (counts["rows"], counts["too_long"], counts["parts"]) == (3, 2, 0)
    assert notes == ["longer than 150 tokens (drop): jsonl 2"]


def test_longer_conversations_are_split_between_turns(rows: Path, fmt: ChatFormat) -> None:
    reading, notes = _read(rows, fmt, "split")
    (counts,) = reading.provenance
    assert (counts["rows"], counts["too_long"]) == (3, 2) and counts["parts"] == len(reading.examples) - 1
    kept = f"{counts['parts']} parts kept, 2 exchanges left out"
    assert notes == [f"longer than 150 tokens (split): jsonl 2 ({kept})"]
    assert counts["left_out"] == 2  # (1, 200), and the conversation that is one long answer
    said: list[tuple[int, int]] = []
    for index in range(1, len(reading.examples)):
        ids = reading.examples.ids(index).tolist()
        assert len(ids) <= 150
        part = fmt.parse(ids).messages
        assert part[0].text == "be kind" and [m.role for m in part[1:3]] == ["user", "assistant"]
        turns = [len(message.text.split()) for message in part[1:]]
        said += zip(turns[::2], turns[1::2], strict=True)
    assert said == [size for size in SIZES if size != (1, 200)]


def test_a_longer_conversation_can_be_an_error_that_names_it(rows: Path, fmt: ChatFormat) -> None:
    with pytest.raises(ContextError, match=r"talks\.jsonl.*at most 150 .*--too-long drop or split"):
        _read(rows, fmt, "raise")


def _recipe(story: tuple[Path, Recipe], **changes: Any) -> Recipe:
    recipe = story[1]
    return dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, **changes))


def test_validation_is_per_source_in_nats_and_bits_per_byte(story: tuple[Path, Recipe]) -> None:
    record = Checkpoint.load(story[0] / "sft").record
    for source in story[1].mixture:
        assert record.curve[-1][f"validation/{source.task}"] > 0
        assert record.curve[-1][f"validation/{source.task}/bits_per_byte"] > 0
    traces = {path.name for path in (story[0] / "sft.run").iterdir()}
    assert {"metrics.jsonl", "loss.svg", "learning_rate.svg", "tensorboard"} <= traces


def test_an_adapter_is_saved_and_opens_as_a_chat_model(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    recipe = _recipe(
        story, lora=Lora(4), train=TrainConfig(num_steps=3, learning_rate=1e-2, precision="fp32")
    )
    record = finetune(recipe, tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        p.name for p in (tmp_path / "adapter").iterdir()
    }
    opened, base = Checkpoint.load(tmp_path / "adapter"), Checkpoint.load(story[0] / "base")
    assert opened.format is not None and opened.record.curve == record.curve
    ids = torch.arange(5, 20)
    assert not torch.allclose(
        opened.model(ids, torch.arange(15)), base.model(ids, torch.arange(15)), atol=1e-3
    )
    assert finetune(recipe, tmp_path / "adapter").curve == record.curve


def test_two_processes_learn_what_one_does_and_write_once(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["picollm.recipes.sft"])
    script = str(Path(__file__).with_name("worker.py"))
    job = {"recipe": story[1], "out": str(tmp_path / "sft"), "store": str(tmp_path / "store"), "size": 2}
    jobs = [{"job": {**job, "rank": rank}} for rank in range(2)]
    workers = [context.Process(target=runpy.run_path, args=(script, each, "__main__")) for each in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    one, two = Checkpoint.load(story[0] / "sft"), Checkpoint.load(tmp_path / "sft")
    for point, other in zip(one.record.curve, two.record.curve, strict=True):
        assert other["loss"] == pytest.approx(point["loss"], rel=1e-4)
        assert other["supervised_tokens"] == point["supervised_tokens"]
    assert len(list((tmp_path / "sft.run" / "tensorboard").iterdir())) == 1


def test_a_base_that_was_taught_another_format_is_refused(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    recipe = _recipe(story, base=str(story[0] / "sft"), format="chatml")
    with pytest.raises(InputError, match=r"taught the chat format 'picollm'.*--format picollm"):
        finetune(recipe, tmp_path / "out")


def test_lora_refuses_tokens_that_it_cannot_train(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    recipe = _recipe(story, format="chatml", lora=Lora(2))
    with pytest.raises(InputError, match="lacks 3 control tokens of the format 'chatml'"):
        finetune(recipe, tmp_path / "out")


def test_a_base_of_no_known_kind_is_refused(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(
        '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}'
    )
    with pytest.raises(CheckpointError, match="LlamaForCausalLM"):
        finetune(_recipe(story, base=str(tmp_path / "gpt2")), tmp_path / "out")


def test_a_step_that_cannot_be_cut_is_refused_before_anything_is_rendered(
    story: tuple[Path, Recipe], tmp_path: Path
) -> None:
    recipe = _recipe(
        story, batch_tokens=512, max_tokens=256, train=TrainConfig(epochs=1, tokens_per_step=700)
    )
    with pytest.raises(InputError, match=r"tokens_per_step is 700; .* Nearest: 512 or 1024"):
        finetune(recipe, tmp_path / "out")
    assert not (tmp_path / "cache").exists()


def test_what_could_not_be_saved_is_not_finished(
    story: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(story[0] / "sft", tmp_path / "sft")
    shutil.copytree(story[0] / "sft.run", tmp_path / "sft.run")
    recipe = _recipe(story, train=dataclasses.replace(story[1].sft.train, learning_rate=4e-3))
    with monkeypatch.context() as full:
        full.setattr(Checkpoint, "save", Mock(side_effect=UnavailableError("no room left")))
        with pytest.raises(UnavailableError, match="no room left"):
            finetune(recipe, out)
    assert Checkpoint.load(out).record.config["sft"]["train"]["learning_rate"] == 5e-3
    notes = Notes()
    finetune(recipe, out, progress=notes)  # type: ignore[arg-type]
    assert any("going on after step 6 of 6" in line for line in notes.lines)
    assert Checkpoint.load(out).record.config["sft"]["train"]["learning_rate"] == 4e-3


def test_an_unfinished_run_with_other_settings_is_neither_continued_nor_dropped(
    story: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = dataclasses.replace(story[1].sft.train, save_every=2)
    with monkeypatch.context() as killed:
        killed.setattr("picollm.recipes.sft.draw_curves", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(_recipe(story, train=steps), tmp_path / "sft")
    with pytest.raises(InputError, match=r"unfinished run with learning_rate 0\.005, this one has 0\.001"):
        finetune(_recipe(story, train=dataclasses.replace(steps, learning_rate=1e-3)), tmp_path / "sft")
    often = dataclasses.replace(steps, save_every=1, log_every=1)
    said = tuple(dataclasses.replace(source, why="because") for source in story[1].mixture)
    record = finetune(dataclasses.replace(_recipe(story, train=often), mixture=said), tmp_path / "sft")
    assert record.curve == Checkpoint.load(tmp_path / "sft").record.curve
    assert [point["step"] for point in record.curve] == [2, 4, 6]


def test_an_adapter_with_another_alpha_is_another_run(
    story: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = TrainConfig(num_steps=2, precision="fp32", save_every=1)
    with monkeypatch.context() as killed:
        killed.setattr("picollm.recipes.sft.draw_curves", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            finetune(_recipe(story, lora=Lora(2, 4.0), train=steps), tmp_path / "out")
    with pytest.raises(InputError, match=r"unfinished run with lora alpha 4\.0, this one has 8\.0"):
        finetune(_recipe(story, lora=Lora(2, 8.0), train=steps), tmp_path / "out")
    finetune(_recipe(story, lora=Lora(2, 4.0), train=steps), tmp_path / "out")


def test_what_is_wrong_is_said_before_a_finished_run_is_cleared_away(
    story: tuple[Path, Recipe], tmp_path: Path
) -> None:
    shutil.copytree(story[0] / "sft", tmp_path / "sft")
    run = shutil.copytree(story[0] / "sft.run", tmp_path / "sft.run")
    before = sorted(path.name for path in run.rglob("*"))
    other = dataclasses.replace(story[1].sft.train, learning_rate=1e-3)
    with pytest.raises(InputError, match="carrier-pigeon"):
        finetune(_recipe(story, train=other), tmp_path / "sft", track="carrier-pigeon")
    assert sorted(path.name for path in run.rglob("*")) == before


def test_examples_know_their_rows_in_the_file(fmt: ChatFormat, tmp_path: Path) -> None:
    path = tmp_path / "kinds.jsonl"
    talks = [{**_talk([(2, 3)]), "kind": n % 3} for n in range(60)]
    path.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    task = load_task("jsonl", "train", location=str(path), filter={"kind": 1})
    recipe = Recipe(mixture=(Source("jsonl", str(path), filter={"kind": 1}),))
    examples = read_mixture(recipe, [task], fmt, 150, tmp_path / "cache").examples
    rows = [examples.row(index) for index in range(len(examples))]
    assert rows == [n for n in range(60) if n % 3 == 1 and n != 49]


def test_a_small_set_has_no_validation_loss_and_says_so(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(_talk([(3, 4)])) + "\n" for _ in range(20)))
    mixture = (Source("jsonl", location=str(path), name="few"), Source("mmlu", limit=20))
    recipe = dataclasses.replace(_recipe(story, train=TrainConfig(num_steps=1)), mixture=mixture)
    notes = Notes()
    record = finetune(recipe, tmp_path / "out", progress=notes)  # type: ignore[arg-type]
    assert "validation of few: 0 of 0 held-out conversations fit" in " ".join(notes.lines)
    assert any(f"computing in {record.measured['precision']}" in line for line in notes.lines)
    assert "validation/mmlu" in record.curve[-1] and "validation/few" not in record.curve[-1]
    alone = dataclasses.replace(recipe, mixture=mixture[:1])
    assert not any("validation" in name for name in finetune(alone, tmp_path / "alone").curve[-1])
    best = dataclasses.replace(
        alone, sft=dataclasses.replace(alone.sft, train=TrainConfig(num_steps=1, keep="best"))
    )
    with pytest.raises(InputError, match="no source has held-out conversations"):
        finetune(best, tmp_path / "best")


def test_a_place_that_is_no_checkpoint_is_refused_before_training(
    story: tuple[Path, Recipe], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not replace")
    (tmp_path / "file").write_text("neither")
    for name in ("mine", "file"):
        with pytest.raises(InputError, match="exists and is no checkpoint"):
            finetune(story[1], tmp_path / name)
        assert not (tmp_path / f"{name}.run").exists()
    with pytest.raises(UnavailableError, match="Not a directory"):
        finetune(story[1], tmp_path / "file" / "deeper")


@pytest.mark.parametrize("change", [(r'"tokens": \d+', '"tokens": 7'), ('"examples"', '"exemples"')])
def test_damaged_counts_of_a_rendered_source_are_not_believed(
    rows: Path, fmt: ChatFormat, change: tuple[str, str]
) -> None:
    before = _read(rows, fmt, "drop")[0].provenance
    (counted,) = (rows.parent / "cache").glob("*/shard.json")
    whole = counted.read_text()
    counted.write_text(re.sub(*change, whole))
    assert counted.read_text() != whole
    assert _read(rows, fmt, "drop")[0].provenance == before
    assert counted.read_text() == whole


def test_an_empty_mixture_is_refused(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \[\[mixture\]\] tables"):
        finetune(dataclasses.replace(story[1], mixture=()), tmp_path / "out")


@pytest.mark.parametrize(("name", "said"), [("dropp", "did you mean 'drop'"), ("cut it", "expected one of")])
def test_an_unknown_rule_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SftRecipe(too_long=name)


def test_an_unfinished_run_on_more_rows_is_neither_continued_nor_dropped(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "out", {"seed": 1, "data": ["abc"]}, rows={"talks": 12})
    with pytest.raises(KeyboardInterrupt), stage.running():
        (stage.run_dir / "state" / "00000004").mkdir(parents=True)
        raise KeyboardInterrupt
    fewer = Stage(tmp_path / "out", {"seed": 1, "data": ["def"]}, rows={"talks": 9})
    with (
        pytest.raises(InputError, match=r"on 12 rows of talks; it has 9 now. Restore the 12 rows"),
        fewer.running(),
    ):
        pass
    for inputs, said in (
        ({"seed": 2, "data": ["def"]}, "with seed 1, this one has 2"),
        ({"seed": 1, "data": ["abc"], "sft": {"train": {"beta1": 0.5}}}, "beta1 None, this one has 0.5"),
        ({"seed": 1, "data": ["abc", "def"]}, "on 12 rows of talks; it has 9 now"),
    ):
        other = Stage(tmp_path / "out", inputs, rows={"talks": 9})
        with pytest.raises(InputError, match=said), other.running():
            pass
        assert (other.run_dir / "state" / "00000004").exists()
    begun = fewer.run_dir / "begun.json"
    begun.write_text(json.dumps({k: v for k, v in json.loads(begun.read_text()).items() if k != "inputs"}))
    with pytest.raises(InputError, match="unfinished run with other settings"):
        fewer.check()


def test_a_conversation_that_fits_is_one_example(fmt: ChatFormat, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(_talk([(2, 3)])) + "\n")
    reading, notes = _read(path, fmt, "raise")
    whole = fmt.render_conversation(Conversation.from_dict(_talk([(2, 3)])))
    assert reading.examples.ids(0).tolist() == whole.ids[: len(reading.examples.ids(0))] and not notes


def test_another_format_than_the_installed_one_is_taken_if_told_so_and_remembered(
    story: tuple[Path, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = shutil.copytree(story[0] / "sft", tmp_path / "changed")
    (changed / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    asked = ["chat", str(changed), "-p", "Hi", "--max-tokens", "4"]
    assert main(asked) == 3 and "--allow-format-mismatch" in capsys.readouterr().err
    assert main([*asked, "--allow-format-mismatch"]) == 0

    recipe = _recipe(story, base=str(changed), train=TrainConfig(num_steps=1, precision="fp32"))
    with pytest.raises(FormatMismatchError):
        finetune(recipe, tmp_path / "out")
    finetune(recipe, tmp_path / "out", allow_format_mismatch=True)
    again = dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, base=str(tmp_path / "out")))
    [remembered] = finetune(again, tmp_path / "later").allowed_mismatch
    assert "chat_template.jinja" in remembered


@pytest.mark.parametrize(
    ("changes", "said"), [({"too_long": "raise", "max_tokens": 40}, "tokens"), ({"batch_tokens": 7}, "")]
)
def test_a_finished_run_outlives_a_wrong_one(
    story: tuple[Path, Recipe], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    out = shutil.copytree(story[0] / "sft", tmp_path / "sft")
    run = shutil.copytree(story[0] / "sft.run", tmp_path / "sft.run")
    before = sorted(path.name for path in run.rglob("*"))
    mixture = story[1].mixture if said else (dataclasses.replace(story[1].mixture[0], weight=1e-6),)
    wrong = dataclasses.replace(_recipe(story, **changes), mixture=mixture)
    with pytest.raises(InputError, match=said or "less than one"):
        finetune(wrong, out)
    assert sorted(path.name for path in run.rglob("*")) == before
    notes = Notes()
    finetune(story[1], out, progress=notes)  # type: ignore[arg-type]
    assert notes.lines == [f"sft: {out} is up to date"]


def test_an_adapter_of_an_adapter_is_refused(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    steps = TrainConfig(num_steps=1, precision="fp32")
    finetune(_recipe(story, lora=Lora(2, 4.0), train=steps), tmp_path / "first")
    again = _recipe(story, base=str(tmp_path / "first"), lora=Lora(2, 4.0), train=steps)
    with pytest.raises(InputError, match=r"is a LoRA adapter itself.* picollm export .*first --merge"):
        finetune(again, tmp_path / "second")


def test_epochs_beside_a_curriculum_are_said_to_be_of_no_use(
    story: tuple[Path, Recipe], tmp_path: Path
) -> None:
    stages = (CurriculumStage("all", tuple(source.label for source in story[1].mixture)),)
    recipe = dataclasses.replace(
        _recipe(story, train=TrainConfig(epochs=5.0, precision="fp32")), stage=stages
    )
    notes = Notes()
    record = finetune(recipe, tmp_path / "out", progress=notes)  # type: ignore[arg-type]
    assert any("have 1 epochs; 5 are not counted" in line for line in notes.lines)
    assert record.curve[-1]["epoch"] == 0
