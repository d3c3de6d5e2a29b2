"""The round loop: sample, compare, train, evaluate, repeat. Every phase does only what is not done yet."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import Any, Literal

from d3po.artifacts.records import read_record, write_record
from d3po.errors import TrainingStoppedError
from d3po.run.clicks import what_to_expect
from d3po.run.control import check_control
from d3po.run.cost.plan import plan_run
from d3po.run.cost.spent import spent_in_all
from d3po.run.evaluate.phase import EvaluationResult, evaluate
from d3po.run.evaluate.report import write_report
from d3po.run.feedback.blind import hold_blind_test, people_say
from d3po.run.feedback.measured import compare_round
from d3po.run.feedback.people import ask_people
from d3po.run.folder import label_of, without_parents
from d3po.run.opened import OpenRun
from d3po.run.sample.phase import sample_round
from d3po.run.session import Session
from d3po.run.train.phase import train_round
from d3po.run.train.rollback import is_undone, roll_back, stand_undone
from d3po.training.guards import check_base, check_evaluation, check_settings

STOP_REMEDY = "restore it from a copy, or delete it: the run goes on where a guard stopped it, and is measured again"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A run that a guard ended before its last round."""

    kept_rounds: int
    """The result is the policy after this many rounds."""
    reason: str


def run_rounds(session: Session, *, minutes: float = 0.0) -> None:
    """Bring the run to its end from wherever it is, and write the report.

    Of several processes all sample and train; the first one does everything else, while the others wait.
    With `minutes` the run ends after the round in which so much time has gone into sampling, judging and training, whatever `rounds` says.
    """
    distributed = session.run.distributed
    if distributed.lends:
        return session.lend()
    distributed.lead(partial(_begin, session))
    for round in count() if minutes else range(session.run.config.rounds):
        if distributed.lead(partial(_is_over, session.run, minutes)):
            break
        try:
            run_round(session, round)
        except TrainingStoppedError as stop:
            distributed.lead(partial(refuse, session, round, str(stop)))
            if not distributed.leads:
                session.moved(None)  # the first process may have gone back; the others do when they next stand at a round
    distributed.lead(partial(_finish, session))


def _begin(session: Session) -> None:
    prepare(session)
    session.run.folder.mark_started(session.run.config, session.run.narrator.say)
    session.run.store.journal.control("resume", session.run.store.people.owner().id)
    for alarm in check_settings(session.run.objective) if session.run.trained_rounds() == 0 else ():
        session.run.raise_alarm(alarm, 0)
    session.run.journal.phase("evaluating", None, "the base model")
    base = evaluate(session, 0)
    announce(session.run, base)
    for alarm in check_base(session.run.config.guards, diversity=base.diversity):
        session.run.raise_alarm(alarm, 0)


def prepare(session: Session) -> None:
    """Have everything at hand that the run needs, so that what cannot be had, or what a setting spoils, is said before any work is done.

    Raises:
        UserError: a part of the model, a judge, the optimizer, the database or a place for metrics cannot be had; or settings leave nothing to train.
    """
    run = session.run
    if run.config.feedback.source == "model":
        from d3po.run.feedback.vision_model import check_judge  # needs packages of an extra

        check_judge(run)
    for holder, part in ((run, "store"), (run, "criteria"), (run, "held_out_reward"), (session, "trainer"), (run, "wandb")):
        getattr(holder, part)


def _finish(session: Session) -> None:
    run, stop, rounds = session.run, read_stop(session.run), result_rounds(session.run)
    if stop:
        run.narrator.say(f"stopped by a guard; the result is the policy after {stop.kept_rounds} rounds: {stop.reason}")
    result = evaluate(session, rounds)
    if run.judged_by_people:
        hold_blind_test(run, rounds)
        result = evaluate(session, rounds)
    run.journal.phase("stopped" if stop else "done", None, stop.reason if stop else _thanks(result))
    run.folder.remember(run.store)
    if run.judged_by_people:
        run.narrator.say(f"result after {rounds} rounds: {people_say(result.people, result.people_answers)}")
        run.narrator.say(f"measured on held-out prompts, {_by_what(run)}{summary(result)}")
    else:
        run.narrator.say(f"result after {rounds} rounds, held-out prompts: {summary(result)}")
    run.narrator.say(f"report: {write_report(run, rounds, stop.reason if stop else None)}")


def _thanks(result: EvaluationResult) -> str:
    """What the rating page tells people in the end, if they were asked."""
    said = people_say(result.people, result.people_answers)
    return f"{said[0].upper()}{said[1:]}." if result.people else ""


def _is_over(run: OpenRun, minutes: float) -> bool:
    return read_stop(run) is not None or (minutes > 0 and is_time_up(run, minutes))


def is_time_up(run: OpenRun, minutes: float) -> bool:
    """Whether the rounds so far have taken that long."""
    return spent_in_all(run.store.journal.read()).seconds >= 60 * minutes


def run_round(session: Session, round: int) -> None:
    """One whole round.

    Raises:
        TrainingStoppedError: a guard fired that stops.
        RunEndedError: somebody ended the run from the dashboard.
    """
    distributed = session.run.distributed
    if distributed.lead(partial(stand_undone, session, round)):
        return
    if session.run.config.feedback.source != "imported":
        distributed.lead(partial(_enter, session.run, "sampling", round))
        sample_round(session, round)
        distributed.lead(partial(collect_feedback, session.run, round))
    distributed.lead(partial(_enter, session.run, "training", round))
    train_round(session, round)
    if session.run.config.evaluation.every_round or round == session.run.config.rounds - 1:
        distributed.lead(partial(_measure_round, session, round))


def _enter(run: OpenRun, phase: Literal["sampling", "training"], round: int) -> None:
    check_control(run)
    run.journal.phase(phase, round)


def _measure_round(session: Session, round: int) -> None:
    session.run.journal.phase("evaluating", round)
    measure(session, round + 1)


def plan_lines(session: Session) -> list[str]:
    """What the rest of the run will take, in words."""
    lines = plan_run(session).lines()
    if session.run.judged_by_people:
        lines += [f"people               {line}" for line in what_to_expect(session.run.config)]
    if session.run.config.feedback.source == "model":
        from d3po.run.feedback.vision_model import judging_estimate  # needs packages of an extra

        lines.append(f"judging              {judging_estimate(session.run)}")
    return lines


def collect_feedback(run: OpenRun, round: int) -> None:
    """Have the round's pictures compared, by people, a vision-language model or the measured judge, whichever the settings say."""
    source = run.config.feedback.source
    if source == "human":
        ask_people(run, round, tested=result_rounds(run))
    elif source == "model":
        from d3po.run.feedback.vision_model import judge_by_model  # needs packages of an extra

        judge_by_model(run, round)
    else:
        compare_round(run, round)


def measure(session: Session, rounds: int) -> EvaluationResult:
    """Evaluate the policy after `rounds` rounds, say the figures, and let the guards look at them.

    Raises:
        TrainingStoppedError: a guard fired that stops.
    """
    result = evaluate(session, rounds)
    announce(session.run, result)
    alarms = check_evaluation(
        session.run.config.guards,
        diversity_kept=result.diversity_kept,
        checkerboard_ratio=result.checkerboard_ratio,
        win_rate=result.win_rate.value,
        held_out_win_rate=result.held_out_win_rate.value if result.held_out_win_rate else None,
    )
    for alarm in alarms:
        session.run.raise_alarm(alarm, rounds - 1)
    return result


def result_rounds(run: OpenRun) -> int:
    """How many rounds are behind the run's result: all that were trained, or those before a guard stopped it or the last was undone."""
    stop = read_stop(run)
    rounds = stop.kept_rounds if stop else run.trained_rounds()
    while rounds and is_undone(run, rounds - 1):
        rounds -= 1
    return rounds


def announce(run: OpenRun, result: EvaluationResult) -> None:
    """One line of figures, and the same for the dashboard."""
    measured = without_parents(run.config.feedback.reward) if run.judged_by_people else ""
    fields = asdict(result, dict_factory=_without_nan)
    run.journal.write("evaluation", result.rounds - 1 if result.rounds else None, **fields, measured=measured)
    if result.rounds == 0:
        subject = "" if result.subject_accuracy is None else f", subject accuracy {result.subject_accuracy:.1%}"
        run.narrator.say(f"base model: {_by_what(run)}score {result.mean_score:.4f}, diversity {result.diversity:.3f}{subject}")
        return
    if run.judged_by_people and result.people:
        run.narrator.say(f"{label_of(result.rounds)}: {people_say(result.people, result.people_answers)}")
    run.narrator.say(f"{label_of(result.rounds)}: {_by_what(run)}{summary(result)}")


def _without_nan(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """As JSON, which has no nan, takes them: ends that an interval does not have are null."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in fields}


def _by_what(run: OpenRun) -> str:
    """What measures, said where people judge, whose own figure is another."""
    return f"by {without_parents(run.config.feedback.reward)}: " if run.judged_by_people else ""


def summary(result: EvaluationResult) -> str:
    """The measured figures that decide whether a tuned policy is better, in one line."""
    parts = [
        f"win rate {result.win_rate}",
        f"score {result.mean_score:.4f}",
        f"diversity kept {result.diversity_kept:.0%}",
        f"checkerboard x{result.checkerboard_ratio:.2f}",
    ]
    if result.held_out_win_rate is not None:
        parts.append(f"held-out judge {result.held_out_win_rate}")
    if result.subject_accuracy is not None and result.subject_change is not None:
        parts.append(f"subject accuracy {result.subject_accuracy:.1%} ({100 * result.subject_change:+.1f} points)")
    return ", ".join(parts) + f", {result.comparisons} comparisons"


def refuse(session: Session, round: int, reason: str) -> None:
    """What guards.action says of a round that may not stand: the run ends before it, or goes back to before it."""
    if session.run.config.guards.action == "rollback":
        roll_back(session, round, reason)
    else:
        stop_at(session.run, kept_rounds=round, reason=reason)


def stop_at(run: OpenRun, *, kept_rounds: int, reason: str) -> None:
    """Record that the run ends here."""
    write_record(run.folder.path / "stopped.json", {"kept_rounds": kept_rounds, "reason": reason, "guards": _guards(run)})


def read_stop(run: OpenRun) -> Stop | None:
    """The record of a guard that ended the run; with other settings in [guards] than then, the run may go on."""
    path = run.folder.path / "stopped.json"
    if not path.exists():
        return None
    record = read_record(path, remedy=STOP_REMEDY, needs=("kept_rounds", "reason", "guards"))
    return Stop(kept_rounds=record["kept_rounds"], reason=record["reason"]) if record["guards"] == _guards(run) else None


def _guards(run: OpenRun) -> dict[str, Any]:
    return run.config.guards.model_dump(mode="json")
