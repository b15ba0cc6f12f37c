"""What the training commands make of their options, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from picollm.cli.main import main
from picollm.errors import PicoError, UnavailableError
from picollm.train.distributed import Ranks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--lora-rank", "0"], "LoRA rank 0 and alpha 0; expected a rank of 1 or more"),
        (["--lora-rank", "4", "--lora-alpha", "0"], "LoRA rank 4 and alpha 0;"),
        (["--lora-rank", "4", "--lora-alpha", "inf"], "LoRA rank 4 and alpha inf;"),
        (["--lora-alpha", "8"], "add --lora-rank, usually 8."),
        (["--precision", "fp16"], "--precision is 'fp16'; expected one of auto, fp32, bf16."),
        (["--device", "abacus"], "device 'abacus' cannot be used here"),
        (["--epochs", "inf"], "epochs is inf; it must be positive."),
        (["--shard", "half"], "--shard is 'half'; expected full"),
        (["--shard", "full"], "there is only one. Start two or more: torchrun"),
        (["--track", "paper"], "paper"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["sft", "--out", str(tmp_path / "out"), *options])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and line.startswith("picollm: ") and said in line


def test_hardware_is_chosen_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Mock(side_effect=UnavailableError("seen enough"))
    monkeypatch.setattr("picollm.recipes.sft.finetune", taken)
    monkeypatch.setattr("picollm.recipes.pretrain.pretrain", taken)
    options = ["--precision", "bf16", "--device", "cuda", "--compile"]
    for command, stage in (("sft", "sft"), ("pretrain", "pretrain")):
        assert main([command, *options]) == 3
        settings = getattr(taken.call_args.args[0], stage).train
        assert (settings.precision, settings.device, settings.compile) == ("bf16", "cuda", True)


def test_what_another_process_has_said_is_not_said_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = UnavailableError("no room left")
    monkeypatch.setattr("picollm.recipes.sft.finetune", Mock(side_effect=error))
    assert main(["sft"]) == 3 and "no room left" in capsys.readouterr().err
    error.told = True
    assert main(["sft"]) == 3 and not capsys.readouterr().err


def test_an_error_of_the_first_process_is_everyones(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    def broadcast(outcome: list[object]) -> None:
        sent[:] = sent or outcome
        outcome[:] = sent

    monkeypatch.setattr("torch.distributed.broadcast_object_list", broadcast)

    def fails() -> None:
        raise UnavailableError("no room left")

    for rank in (0, 1):
        with pytest.raises(UnavailableError, match="no room left") as caught:
            Ranks(rank, 2).first_does(fails if rank == 0 else Mock(side_effect=AssertionError))
        assert caught.value.told == (rank == 1)


def test_what_all_processes_find_is_said_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str | None] = []
    monkeypatch.setattr(Ranks, "gather", lambda ranks, own: said)

    def fails() -> None:
        raise UnavailableError("no such file")

    cases = [  # what all say; what each does; whether it is told already
        (["no such file"] * 2, [fails, fails], [False, True]),
        ([None, "no such file"], [int, fails], [True, False]),
        (["no such file", None], [fails, int], [False, True]),
    ]
    for texts, actions, told in cases:
        said[:] = texts
        for rank in (0, 1):
            with pytest.raises(PicoError, match="no such file") as caught:
                Ranks(rank, 2).alike(actions[rank])
            assert caught.value.told == told[rank]
    said[:] = [None, None]
    assert Ranks(1, 2).alike(int) == 0
