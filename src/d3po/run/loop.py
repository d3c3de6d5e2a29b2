"""The round loop: sample, compare, train, evaluate, repeat. Every phase does only what is not done yet."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from typing import Any, Literal

from d3po.artifacts.records import read_record, write_record
from d3po.errors import TrainingStoppedError
from d3po.run.control import check_control
from d3po.run.cost.clicks import what_to_expect
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
from d3po.run.train.rollback import ensure_undone, is_undone, roll_back
from d3po.training.guards import check_base, check_evaluation, check_settings

STOP_REMEDY = "restore it from a copy, or delete it: the run then continues where a guard stopped it, and is evaluated again"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The record of a guard that ended the run before its last round."""

    kept_rounds: int
    """After how many rounds the run's result is taken."""
    reason: str


def run_rounds(session: Session, *, minutes: float = 0.0) -> None:
    """Continue the run to its end from wherever it is, and write the report.

    If there are several processes, all of them sample and train; the first one does everything else while the others wait.

    Args:
        session: the open run with its model.
        minutes: if above 0, end after the round in which sampling, comparing and training have taken this long, whatever `rounds` says.
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
                session.moved(None)  # the first process may have rolled back; the others load the right weights at the next round
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
    """Load everything that the run needs, so that anything missing or misconfigured is reported before any work is done.

    Raises:
        UserError: a part of the model, a reward, the optimizer, the database or Weights & Biases is not available; or the settings leave nothing
            to train.
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
    """Whether the rounds so far have taken at least `minutes`."""
    return spent_in_all(run.store.journal.read()).seconds >= 60 * minutes


def run_round(session: Session, round: int) -> None:
    """Do one round: sample, compare, train, evaluate. What is done already is kept.

    Raises:
        TrainingStoppedError: a guard stopped the run.
        RunEndedError: a person ended the run from the dashboard.
    """
    distributed = session.run.distributed
    if distributed.lead(partial(ensure_undone, session, round)):
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
    """Estimate what the whole run takes, in lines of text."""
    lines = plan_run(session).lines()
    if session.run.judged_by_people:
        lines += [f"people               {line}" for line in what_to_expect(session.run.config)]
    if session.run.config.feedback.source == "model":
        from d3po.run.feedback.vision_model import judging_estimate  # needs packages of an extra

        lines.append(f"judging              {judging_estimate(session.run)}")
    return lines


def collect_feedback(run: OpenRun, round: int) -> None:
    """Have the round's pictures compared by people, by a vision-language model or by a reward, as `feedback.source` says."""
    source = run.config.feedback.source
    if source == "human":
        ask_people(run, round, tested=result_rounds(run))
    elif source == "model":
        from d3po.run.feedback.vision_model import judge_by_model  # needs packages of an extra

        judge_by_model(run, round)
    else:
        compare_round(run, round)


def measure(session: Session, rounds: int) -> EvaluationResult:
    """Evaluate the policy after `rounds` rounds, report the figures, and check them against the guards.

    Raises:
        TrainingStoppedError: a guard stopped the run.
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
    """After how many rounds the run's result is taken: all trained rounds, without those that a guard refused or that were undone at the end."""
    stop = read_stop(run)
    rounds = stop.kept_rounds if stop else run.trained_rounds()
    while rounds and is_undone(run, rounds - 1):
        rounds -= 1
    return rounds


def announce(run: OpenRun, result: EvaluationResult) -> None:
    """Report an evaluation, and write it to the journal for the dashboard."""
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
    """Replace nan, which JSON does not have, by None: the missing ends of an interval become null."""
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
        parts.append(f"held-out reward {result.held_out_win_rate}")
    if result.subject_accuracy is not None and result.subject_change is not None:
        parts.append(f"subject accuracy {result.subject_accuracy:.1%} ({100 * result.subject_change:+.1f} points)")
    return ", ".join(parts) + f", {result.comparisons} comparisons"


def refuse(session: Session, round: int, reason: str) -> None:
    """Act on a round that a guard refused, as `guards.action` says: roll it back, or end the run with the policy before it as its result."""
    if session.run.config.guards.action == "rollback":
        roll_back(session, round, reason)
    else:
        stop_at(session.run, kept_rounds=round, reason=reason)


def stop_at(run: OpenRun, *, kept_rounds: int, reason: str) -> None:
    """Record that a guard ended the run, and after how many rounds its result is taken."""
    write_record(run.folder.path / "stopped.json", {"kept_rounds": kept_rounds, "reason": reason, "guards": _guards(run)})


def read_stop(run: OpenRun) -> Stop | None:
    """Read the record of a guard that ended the run. None if there is none, or if the settings in [guards] have changed since: the run may continue."""
    path = run.folder.path / "stopped.json"
    if not path.exists():
        return None
    record = read_record(path, remedy=STOP_REMEDY, needs=("kept_rounds", "reason", "guards"))
    return Stop(kept_rounds=record["kept_rounds"], reason=record["reason"]) if record["guards"] == _guards(run) else None


def _guards(run: OpenRun) -> dict[str, Any]:
    return run.config.guards.model_dump(mode="json")
