"""The commands: one line and the right exit code for whatever a user gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from picollm.cli.main import COMMANDS, main
from picollm.recipes.config import Recipe


def test_help_lists_every_command_and_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS) and len(text.splitlines()) <= 24


def test_help_imports_neither_torch_nor_datasets() -> None:
    code = "import sys; from picollm.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip().endswith("False")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"picollm {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trane"], 2, "no command 'trane'"),
        (["chta"], 2, "did you mean 'chat'"),
        (["sft", "--epochs", "many"], 2, "--epochs is 'many'; expected a number"),
        (["serve", "--port=abc"], 2, "--port is 'abc'; expected a whole number"),
        (["chat", "-p"], 2, "--prompt needs a value"),
        (["eval", "x", "--form", "z"], 2, "invalid choice 'z' for argument '--form'"),
        (["show"], 2, "needs FILE"),
        (["check"], 2, "needs DATA"),
        (["push"], 2, "needs CHECKPOINT and NAME"),
        (["sft", "extra"], 2, "cannot use extra"),
        (["identity"], 2, "There is verify, build"),
        (["identity", "verfy"], 2, "Did you mean verify?"),
        (["sft", "--config", "nowhere.toml"], 2, "cannot read the recipe nowhere.toml"),
        (["sft", "--data-root", "nowhere"], 2, "--data-root nowhere is not a directory"),
        (["eval", "nowhere", "--tasks", "mmul"], 2, "did you mean 'mmlu'"),
        (["eval", "nowhere/at/all", "--tasks", "mmlu"], 3, "nowhere/at/all"),
        (["eval", "nowhere", "--tasks", ""], 2, "no task"),
        (["show", "nowhere.json"], 2, "nowhere.json"),
        (["chat", "nowhere/at/all", "-p", "hi"], 3, "nowhere/at/all"),
        (["pretrain", "--tokenizer", "nowhere"], 3, "no tokenizer at nowhere"),
        (["identity", "verify", "--file", "nowhere.jsonl"], 3, "nowhere"),
        (["identity", "build", "--template", "mine.toml"], 2, "--out"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main(arguments) == code
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("picollm: ") and "\n" not in error


@pytest.mark.parametrize("command", ["chat -p hi", "serve --port 0", "eval", "compare pico-base", "certify"])
def test_before_there_is_a_chat_model_every_command_says_how_to_get_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOLLM_HOME", str(tmp_path))
    assert main(command.split()) == 3
    assert "bash speedrun.sh" in capsys.readouterr().err


def test_a_missing_package_is_one_line() -> None:
    root = Path(__file__).resolve().parents[2]
    bare = [sys.executable, "-S", "-m", "picollm", "sft"]  # without site-packages
    done = subprocess.run(bare, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "scripts/install" in done.stderr


@pytest.mark.parametrize("arguments", ["--help", "sft --help"])
def test_a_reader_that_leaves_is_no_error(arguments: str) -> None:
    command = f"'{sys.executable}' -m picollm {arguments} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n" and done.stderr == ""


def test_show_gives_programs_one_json_document(
    story: tuple[Path, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    (tmp_path / "talk.json").write_text(json.dumps(talk))
    assert main(["show", str(tmp_path / "talk.json"), "--json", "--checkpoint", str(story[0] / "sft")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["ids"]) == len(found["loss_mask"]) == len(found["tokens"])
    supervised = [token for token, bit in zip(found["tokens"], found["loss_mask"], strict=True) if bit]
    assert "".join(supervised[:-1]) == "Hello."


def test_chat_answers_one_prompt_on_stdout(
    story: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", str(story[0] / "sft"), "-p", "Hi", "--max-tokens", "4"]) == 0
    assert capsys.readouterr().out.endswith("\n")


def test_eval_gives_programs_one_json_document(
    story: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--tasks", "mmlu,facts", "--limit", "3", "--max-tokens", "4", "--json"]
    assert main(["eval", str(story[0] / "sft"), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(score["task"], score["form"], score["num"]) for score in found["scores"]] == [
        ("mmlu", "chat", 3),
        ("facts", "chat", 3),
    ]
    assert found["chat_core"] == pytest.approx(sum(score["centered"] for score in found["scores"]) / 2)


def test_compare_refuses_checkpoints_that_do_not_belong_together(
    story: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(story[0] / "sft"), str(story[0] / "nowhere")]) == 3
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "given", "turns"),
    [("sft", {}, "1000"), ("sft", {"OMP_WAIT_POLICY": "active"}, "None"), ("chat", {}, "None")],
)
def test_threads_that_wait_sleep_where_much_is_computed_unless_the_user_says_how(
    name: str, given: dict[str, str], turns: str
) -> None:
    code = f"import os; from picollm.cli.main import main; main(['{name}', '--help'])"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(os.environ.get('GOMP_SPINCOUNT'))"],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, **given},
    )
    assert done.stdout.split()[-1] == turns
