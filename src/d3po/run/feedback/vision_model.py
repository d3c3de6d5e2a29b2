"""The feedback phase where a vision-language model judges: the round's pairs, asked about in both orders, recorded as a model's votes."""

import hashlib
import json
import os
from dataclasses import asdict

from d3po.artifacts.files import write_atomically
from d3po.errors import RewardError
from d3po.preferences.records import ImageRecord, NewQuestion
from d3po.run.cost.counting import pairs_of_a_prompt
from d3po.run.feedback.measured import pairs_of_round
from d3po.run.workbench import Workbench
from d3po.vlm.cache import VerdictCache
from d3po.vlm.client import ChatClient, Patience
from d3po.vlm.judge import BothOrders, Conduct, PicturePair, VisionJudge, conduct
from d3po.vlm.spending import Budget, Estimate, Price, estimate

SHOWN_NAME = 40
"""Characters of the model's name that its handle shows."""


def judge_by_model(bench: Workbench, round: int) -> None:
    """Ask the model about the round's pairs and record its answers, all in one transaction. Answers are kept as they come, so a killed run asks no pair again.

    Raises:
        RewardError: the endpoint fails, the money is spent, or the model contradicts itself too often to be believed.
    """
    if bench.store.votes.count(round=round):
        return
    images = {image.id: image for image in bench.store.pictures.images(round)}
    pairs = [_pictures(bench, images[a], images[b]) for a, b in pairs_of_round(bench, list(images.values()))]
    bench.narrator.say(f"round {round}: asking {bench.config.vlm_judge.model} about {_estimate(bench, len(pairs), pairs[0].prompt)}")
    bench.journal.phase("judging", round, bench.config.vlm_judge.model)
    budget = _purse(bench)
    before = budget.cost
    verdicts = _ask(bench, budget, pairs, round)
    behaved = conduct(verdicts)
    _publish(bench, round, behaved, cost=budget.cost - before)
    _require_consistency(bench, behaved)
    annotator = bench.store.people.annotator(_handle(bench), "model")
    judgements = [
        (NewQuestion(kind="pair", purpose="train", images=(pair.image_a, pair.image_b), round=round), verdict.answer(pair))
        for pair, verdict in zip(pairs, verdicts, strict=True)
    ]
    bench.store.votes.record_judgements(annotator.id, judgements)


def check_judge(bench: Workbench) -> None:
    """Hold the endpoint's address against what can be asked.

    Raises:
        ConfigError: it is none that can be asked.
    """
    _client(bench, _purse(bench)).close()


def judging_estimate(bench: Workbench) -> Estimate:
    """What judging the whole run will take."""
    config = bench.config
    pairs = config.rounds * config.sampling.prompts_per_round * pairs_of_a_prompt(config)
    return _estimate(bench, pairs, max(bench.folder.prompts(), key=len))


def _estimate(bench: Workbench, pairs: int, prompt: str) -> Estimate:
    judge = bench.config.vlm_judge
    return estimate(pairs, criterion=judge.criterion, prompt=prompt, picture_tokens=judge.picture_tokens, price=_price(bench))


def _price(bench: Workbench) -> Price:
    return Price(read=bench.config.vlm_judge.input_price, written=bench.config.vlm_judge.output_price)


def _purse(bench: Workbench) -> Budget:
    return Budget(_price(bench), cap=bench.config.vlm_judge.max_cost, ledger=bench.folder.verdicts / "spent.txt")


def _ask(bench: Workbench, budget: Budget, pairs: list[PicturePair], round: int) -> list[BothOrders]:
    settings, client = bench.config.vlm_judge, _client(bench, budget)
    cache = VerdictCache(bench.folder.verdicts, model=settings.model, criterion=settings.criterion)
    judge = VisionJudge(
        model=settings.model,
        criterion=settings.criterion,
        client=client,
        cache=cache,
        concurrency=settings.concurrency,
        most_tokens=settings.answer_tokens,
    )
    try:
        with bench.narrator.bar(f"round {round}: judging", total=len(pairs)) as bar:
            return judge.judge_all(pairs, bar.advance)
    finally:
        client.close()


def _client(bench: Workbench, budget: Budget) -> ChatClient:
    settings = bench.config.vlm_judge
    patience = Patience(timeout=settings.timeout_seconds, attempts=settings.attempts)
    return ChatClient(settings.url, key=os.environ.get(settings.key_variable), patience=patience, budget=budget)


def _pictures(bench: Workbench, a: ImageRecord, b: ImageRecord) -> PicturePair:
    root = bench.folder.path
    return PicturePair(
        prompt=a.prompt,
        image_a=a.id,
        image_b=b.id,
        path_a=root / a.path,
        path_b=root / b.path,
        checksum_a=a.sha256,
        checksum_b=b.sha256,
    )


def _publish(bench: Workbench, round: int, behaved: Conduct, *, cost: float) -> None:
    judge = bench.config.vlm_judge
    record = {"model": judge.model, "criterion": judge.criterion, "cost": cost, **asdict(behaved)}
    write_atomically(bench.folder.verdicts / f"round-{round:03}.json", json.dumps(record, indent=1))
    bench.narrator.say(f"round {round}: {judge.model} was {behaved}; it cost {cost:.2f}")


def _require_consistency(bench: Workbench, behaved: Conduct) -> None:
    share, least = behaved.consistent.share, bench.config.vlm_judge.min_consistency
    if share is not None and share < least:
        raise RewardError(
            f"{bench.config.vlm_judge.model} says the same in both orders of only {share:.0%} of its pairs, and vlm_judge.min_consistency is {least:.0%}; "
            "ask another model, or by a simpler vlm_judge.criterion"
        )


def _handle(bench: Workbench) -> str:
    """The model's name, and a hash that tells its criteria apart."""
    judge = bench.config.vlm_judge
    asked = hashlib.sha256(json.dumps([judge.model, judge.criterion]).encode()).hexdigest()
    return f"model:{judge.model[:SHOWN_NAME]}#{asked[:8]}"
