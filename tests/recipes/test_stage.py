"""A stage runs once for its inputs, and leaves nothing that looks finished when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.recipes.stage import Stage


def run(stage: Stage) -> None:
    with stage.running():
        stage.out.mkdir(exist_ok=True)


def test_a_finished_stage_is_finished_for_the_same_inputs_only(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "out", {"seed": 1})
    assert not stage.finished()
    run(stage)
    assert stage.finished()
    assert Stage(tmp_path / "out", {"seed": 1}).finished()
    assert not Stage(tmp_path / "out", {"seed": 2}).finished()


def test_a_stage_whose_result_was_deleted_is_not_finished(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "out", {})
    run(stage)
    stage.out.rmdir()
    assert not stage.finished()


def test_an_interrupted_stage_keeps_its_traces_for_the_same_inputs_and_drops_them_for_others(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path / "out", {"seed": 1})
    with pytest.raises(KeyboardInterrupt), stage.running():
        (stage.run_dir / "state").write_text("half")
        raise KeyboardInterrupt
    assert not stage.finished()
    with stage.running():
        assert (stage.run_dir / "state").read_text() == "half"
    with Stage(stage.out, {"seed": 2}).running():
        assert not (stage.run_dir / "state").exists()


def test_a_stage_measures_itself(tmp_path: Path) -> None:
    with Stage(tmp_path / "out", {}).running() as measured:
        pass
    assert measured()["seconds"] >= 0 and measured()["peak_rss_mib"] > 1
