"""Which forms are asked, what a task may be called, and that an interruption costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picollm import paths
from picollm.errors import DataError, InputError
from picollm.infer.engine import Engine
from picollm.recipes.config import Recipe
from picollm.recipes.evaluate import Evaluation, evaluate_checkpoint, open_tasks

Story = tuple[Path, Recipe]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOLLM_HOME", str(tmp_path))


def test_a_base_model_is_asked_in_both_forms(story: Story) -> None:
    found = evaluate_checkpoint(str(story[0] / "base"), ["mmlu", "facts", "bits"], limit=3, max_tokens=4)
    assert found is not None
    assert [(score.task, score.form) for score in found.scores] == [
        ("mmlu", "chat"),
        ("mmlu", "completion"),
        ("facts", "chat"),
        ("facts", "completion"),
    ]
    assert found.bits["primer"].num_texts == 3 and found.core is None
    chat = [score.centered for score in found.scores if score.form == "chat"]
    assert found.chat_core == pytest.approx(sum(chat) / 2)
    assert json.loads(json.dumps(found.to_dict()))["scores"][0]["interval"]


def test_a_fine_tuned_model_is_asked_in_chat_form(story: Story, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"}\n')
    found = evaluate_checkpoint(str(story[0] / "sft"), [str(own)], max_tokens=4)
    assert found is not None
    assert [(s.task, s.form, s.num) for s in found.scores] == [("jsonl", "chat", 1)]


def test_an_interrupted_evaluation_goes_on(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Evaluation:
        found = evaluate_checkpoint(str(story[0] / "sft"), ["mmlu", "facts"], limit=160, max_tokens=8)
        assert found is not None
        return found

    whole = run()
    assert not list((paths.home() / "eval").iterdir())
    step, steps, scored = Engine.step, [], []

    def interrupted(engine: Engine) -> object:
        steps.append(engine)
        if len(steps) == 14:  # 128 of the 160 replies are finished
            raise KeyboardInterrupt
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert {path.name.split(".")[0] for path in (paths.home() / "eval").iterdir()} == {"mmlu", "facts"}
    score = Engine.score
    monkeypatch.setattr(Engine, "score", lambda *given: scored.extend(given[1]) or score(*given))
    again = run()
    assert scored == [] and len(steps) - 14 <= 10
    assert [s.num_right for s in again.scores] == [s.num_right for s in whole.scores]
    assert [s.failures for s in again.scores] == [s.failures for s in whole.scores]
    assert not list((paths.home() / "eval").iterdir())


def test_bad_input_says_what_to_do(story: Story, tmp_path: Path) -> None:
    for names, said in ((["coree"], "did you mean 'core'"), (["core/coppa"], "did you mean 'core/copa'")):
        with pytest.raises(InputError, match=said):
            open_tasks(names, None)
    with pytest.raises(InputError, match="expected one of smoltalk"):
        open_tasks(["zzz"], None)
    with pytest.raises(DataError, match=r"copa\.jsonl"):
        open_tasks(["core/copa"], tmp_path)
    with pytest.raises(InputError, match="a limit of 0 asks nothing"):
        evaluate_checkpoint(str(story[0] / "sft"), ["mmlu"], limit=0)
    with pytest.raises(InputError, match="no task to score"):
        evaluate_checkpoint(str(story[0] / "sft"), [])
    with pytest.raises(DataError, match="no folder pretrain/NAME"):
        evaluate_checkpoint(str(story[0] / "sft"), ["bits"], data_root=tmp_path)
