"""Rounds that count as trained, and what is measured of them."""

from d3po.run.evaluate.phase import evaluate
from d3po.run.session import Session
from d3po.run.train.states import save_state
from tests.unit.run.toy import policy_of


def train(session: Session, shift: float, round: int = 0) -> None:
    """Call the round trained, to this shift of all colours."""
    assert session.trainer.policy is policy_of(session), "which remembers where the policy began"
    session.load_round_weights(round)
    policy_of(session).move(shift)
    save_state(session, round, 1, final=True, moving=None)
    session.moved(round + 1)


def evaluate_both(session: Session, shift: float) -> None:
    """Measure the base model, and the policy after a round that ends at this shift."""
    evaluate(session, 0)
    train(session, shift)
    evaluate(session, 1)
