"""The feedback phase with a vision-language model as judge: it is asked about each pair in both orders, and its answers are recorded as votes."""

import hashlib
import json
import os
from dataclasses import asdict

from d3po.artifacts.files import write_atomically
from d3po.errors import RewardError
from d3po.preferences.records import ImageRecord, NewQuestion
from d3po.run.cost.counting import pairs_of_a_prompt
from d3po.run.feedback.measured import pairs_of_round
from d3po.run.opened import OpenRun
from d3po.vlm.cache import VerdictCache
from d3po.vlm.client import ChatClient, Patience
from d3po.vlm.judge import BothOrders, Conduct, PicturePair, VisionJudge, conduct
from d3po.vlm.spending import Budget, Estimate, Price, estimate

SHOWN_NAME = 40
"""The most characters of the model's name that are part of its handle."""


def judge_by_model(run: OpenRun, round: int) -> None:
    """Ask the model about the round's pairs, and record its answers in one transaction.

    Each answer is cached in `verdicts/` when it comes, so that a killed run does not ask again. Nothing is done if the round has votes.

    Raises:
        RewardError: the endpoint fails, the budget is spent, or the model contradicts itself too often.
    """
    if run.store.votes.count(round=round):
        return
    images = {image.id: image for image in run.store.pictures.images(round)}
    pairs = [_pictures(run, images[a], images[b]) for a, b in pairs_of_round(run, list(images.values()))]
    run.narrator.say(f"round {round}: asking {run.config.vlm_judge.model} about {_estimate(run, len(pairs), pairs[0].prompt)}")
    run.journal.phase("judging", round, run.config.vlm_judge.model)
    budget = _budget(run)
    before = budget.cost
    verdicts = _ask(run, budget, pairs, round)
    found = conduct(verdicts)
    _report(run, round, found, cost=budget.cost - before)
    _require_consistency(run, found)
    annotator = run.store.people.annotator(_handle(run), "model")
    judgements = [
        (NewQuestion(kind="pair", purpose="train", images=(pair.image_a, pair.image_b), round=round), verdict.answer(pair))
        for pair, verdict in zip(pairs, verdicts, strict=True)
    ]
    run.store.votes.record_judgements(annotator.id, judgements)


def check_judge(run: OpenRun) -> None:
    """Check the endpoint's address.

    Raises:
        ConfigError: it is not a valid http or https address.
    """
    _client(run, _budget(run)).close()


def judging_estimate(run: OpenRun) -> Estimate:
    """Estimate the calls, tokens and cost of judging the whole run."""
    config = run.config
    pairs = config.rounds * config.sampling.prompts_per_round * pairs_of_a_prompt(config)
    return _estimate(run, pairs, max(run.folder.prompts(), key=len))


def _estimate(run: OpenRun, pairs: int, prompt: str) -> Estimate:
    judge = run.config.vlm_judge
    return estimate(pairs, criterion=judge.criterion, prompt=prompt, picture_tokens=judge.picture_tokens, price=_price(run))


def _price(run: OpenRun) -> Price:
    return Price(read=run.config.vlm_judge.input_price, written=run.config.vlm_judge.output_price)


def _budget(run: OpenRun) -> Budget:
    return Budget(_price(run), cap=run.config.vlm_judge.max_cost, ledger=run.folder.verdicts / "spent.txt")


def _ask(run: OpenRun, budget: Budget, pairs: list[PicturePair], round: int) -> list[BothOrders]:
    settings, client = run.config.vlm_judge, _client(run, budget)
    cache = VerdictCache(run.folder.verdicts, model=settings.model, criterion=settings.criterion)
    judge = VisionJudge(
        model=settings.model,
        criterion=settings.criterion,
        client=client,
        cache=cache,
        concurrency=settings.concurrency,
        most_tokens=settings.answer_tokens,
    )
    try:
        with run.narrator.bar(f"round {round}: judging", total=len(pairs)) as bar:
            return judge.judge_all(pairs, bar.advance)
    finally:
        client.close()


def _client(run: OpenRun, budget: Budget) -> ChatClient:
    settings = run.config.vlm_judge
    patience = Patience(timeout=settings.timeout_seconds, attempts=settings.attempts)
    return ChatClient(settings.url, key=os.environ.get(settings.key_variable), patience=patience, budget=budget)


def _pictures(run: OpenRun, a: ImageRecord, b: ImageRecord) -> PicturePair:
    root = run.folder.path
    return PicturePair(
        prompt=a.prompt,
        image_a=a.id,
        image_b=b.id,
        path_a=root / a.path,
        path_b=root / b.path,
        checksum_a=a.sha256,
        checksum_b=b.sha256,
    )


def _report(run: OpenRun, round: int, found: Conduct, *, cost: float) -> None:
    judge = run.config.vlm_judge
    record = {"model": judge.model, "criterion": judge.criterion, "cost": cost, **asdict(found)}
    write_atomically(run.folder.verdicts / f"round-{round:03}.json", json.dumps(record, indent=1))
    run.narrator.say(f"round {round}: {judge.model} was {found}; it cost {cost:.2f}")


def _require_consistency(run: OpenRun, found: Conduct) -> None:
    share, least = found.consistent.share, run.config.vlm_judge.min_consistency
    if share is not None and share < least:
        raise RewardError(
            f"{run.config.vlm_judge.model} gives the same answer in both orders for only {share:.0%} of the pairs, and vlm_judge.min_consistency is "
            f"{least:.0%}; use another model, or a simpler vlm_judge.criterion"
        )


def _handle(run: OpenRun) -> str:
    """The annotator's handle: the model's name, with a hash of name and criterion."""
    judge = run.config.vlm_judge
    asked = hashlib.sha256(json.dumps([judge.model, judge.criterion]).encode()).hexdigest()
    return f"model:{judge.model[:SHOWN_NAME]}#{asked[:8]}"
