"""Live questions to any language model that litellm knows: paced, within a budget, each answer kept as it arrives.

A key comes from the environment, where litellm looks for it, and goes nowhere else: no message of a provider is
repeated here, since some of them quote the key.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, stop_after_attempt
from tqdm import tqdm

from cmmlib.errors import InputError
from cmmlib.texts.questions import Question, checked_sentences
from cmmlib.texts.transcripts import Record, append

ATTEMPTS = 6  # of a request that was not answered: rate limit, time-out, server error, dropped connection
LONGEST_WAIT = 60.0  # seconds between two of them
ANSWER_TOKENS = 1200
PASSING = ("RateLimitError", "Timeout", "APIConnectionError", "InternalServerError", "ServiceUnavailableError")
REFUSED = {
    "AuthenticationError": "the key was refused or is missing: set the provider's variable, as in OPENAI_API_KEY",
    "PermissionDeniedError": "the key has no access to this model",
    "NotFoundError": "there is no such model at this provider",
    "BudgetExceededError": "the provider's budget is used up",
}


@dataclass(frozen=True)
class Budget:
    """What a session may use. `max_cost` is in US dollars, and is kept only for models whose price litellm knows."""

    max_requests: int | None = None
    max_cost: float | None = None


@dataclass
class Spent:
    """What a session has used."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    priced: bool = True  # whether every answer so far had a known price
    stopped: threading.Event = field(default_factory=threading.Event, repr=False)  # nothing more is asked
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def take(self, budget: Budget) -> None:
        """Count one more request.

        Raises:
            OverBudget: the budget is used up, or cannot be kept; the reason.
        """
        with self._lock:
            if budget.max_cost is not None and not self.priced:
                raise OverBudget("not asked: litellm knows no price of this model, so max_cost cannot be kept")
            requests = budget.max_requests is not None and self.requests >= budget.max_requests
            if self.stopped.is_set() or requests or (budget.max_cost is not None and self.cost >= budget.max_cost):
                raise OverBudget("not asked: the budget is used up")
            self.requests += 1

    def add(self, tokens: int | None, cost: float | None) -> None:
        """Count one answer's tokens and its cost in US dollars, None where litellm knows no price."""
        with self._lock:
            self.tokens += tokens or 0
            self.cost += cost or 0.0
            self.priced &= cost is not None


@dataclass(frozen=True)
class Session:
    """Where to ask, and how.

    Attributes:
        model: litellm's name, as in `openai/gpt-4o-mini`, `anthropic/...`, `ollama/...`.
        base_url: address of a server that speaks OpenAI's chat API.
        transcript: file that each answer is appended to as it arrives.
        concurrency: requests at a time.
        timeout: seconds for one request.
    """

    model: str
    transcript: Path
    base_url: str | None = None
    budget: Budget = field(default_factory=Budget)
    concurrency: int = 4
    timeout: float = 60.0
    pause: Callable[[float], None] | None = None  # waits that many seconds; by default until Ctrl-C at most


class OverBudget(Exception):
    """A question that was not asked; the text is the reason."""


class Unanswered(Exception):
    """A question that got no usable answer; the text is the reason."""


def ask(
    questions: dict[int, Question], session: Session, fits_context: Callable[[str], bool] = lambda text: True
) -> tuple[dict[int, Record], dict[int, str], Spent]:
    """Ask every question once, several at a time.

    A passing failure is tried again, after the time that the server asks for; an unusable answer is asked again once.
    Whatever fails for good is returned with its reason, and the rest goes on. Ctrl-C stops; what was answered is kept.

    Returns:
        Records by class, reasons by class that has none, and what was spent.

    Raises:
        InputError: the provider refuses (key, model), in one line.
    """
    spent, records, failed = Spent(), {}, {}
    lock = threading.Lock()
    completion = _litellm().completion
    pool = ThreadPoolExecutor(session.concurrency)
    pending: dict[Future, int] = {}
    try:
        pending = {
            pool.submit(_answered, q, session, spent, lock, completion, fits_context): c for c, q in questions.items()
        }
        with tqdm(total=len(pending), desc=f"asking {session.model}", unit="class", disable=None) as progress:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
                for future in done:
                    c = pending.pop(future)
                    try:
                        records[c] = future.result()
                    except (OverBudget, Unanswered) as error:
                        failed[c] = str(error)
                    progress.update()
    finally:
        if pending:
            spent.stopped.set()  # what is under way is kept, but not tried again
        pool.shutdown(wait=not pending, cancel_futures=True)
    return records, {c: failed[c] for c in questions if c in failed}, spent


def _answered(
    question: Question, session: Session, spent: Spent, lock: threading.Lock, completion: Any, fits_context: Callable
) -> Record:
    reason = ""
    for _ in range(2):  # a bad answer is asked again once
        text, tokens, cost = _request(question, session, spent, completion)
        try:
            answer = checked_sentences(text, fits_context)
        except ValueError as error:
            reason = str(error)
            continue
        record = Record(
            class_name=question.class_name,
            domain=question.domain,
            style=question.style,
            rivals=question.rivals,
            answer=tuple(answer),
            model=session.model,
            tokens=tokens,
            cost=cost,
            date=datetime.now(UTC).date().isoformat(),
            origin="live",
        )
        with lock:
            append(session.transcript, record)
        return record
    raise Unanswered(f"unusable twice: {reason}")


def _request(
    question: Question, session: Session, spent: Spent, completion: Any
) -> tuple[str, int | None, float | None]:
    """One answer's text, tokens and cost; passing failures are waited out."""
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=_delay,
        sleep=session.pause or spent.stopped.wait,  # type: ignore[arg-type]  # it says whether it was stopped
        retry=retry_if_exception(_passes),
    )
    try:
        return retrying(_ask_once, question, session, spent, completion)
    except RetryError as error:
        kind = type(error.last_attempt.exception()).__name__
        raise Unanswered(f"no answer after {ATTEMPTS} requests: {kind}") from None


def _ask_once(
    question: Question, session: Session, spent: Spent, completion: Any
) -> tuple[str, int | None, float | None]:
    spent.take(session.budget)
    try:
        response = completion(
            model=session.model,
            messages=[{"role": "user", "content": question.text}],
            base_url=session.base_url,
            timeout=session.timeout,
            max_tokens=ANSWER_TOKENS,
            response_format={"type": "json_object"},
            num_retries=0,
            max_retries=0,
            drop_params=True,
        )
    except Exception as error:  # litellm maps every provider's errors to its own classes
        if _kind(error) in REFUSED:
            raise InputError(f"llm: {session.model}: {REFUSED[_kind(error)]}") from None
        if not _passes(error):
            raise Unanswered(f"the provider failed: {_kind(error)}") from None
        raise
    tokens, cost = _usage(response)
    spent.add(tokens, cost)
    return _content(response), tokens, cost


def _kind(error: BaseException) -> str:
    kind = type(error).__name__
    no_key = kind == "InternalServerError" and "_API_KEY" in str(error)  # of OpenAI's client, which found none
    return "AuthenticationError" if no_key else kind


def _passes(error: BaseException) -> bool:
    """Whether the same question may be answered a little later."""
    return _kind(error) in PASSING or getattr(error, "status_code", 0) in (408, 409, 429, 500, 502, 503, 504)


def _delay(state: RetryCallState) -> float:
    """Seconds to wait: what the server asks for, else twice as long each time, with jitter."""
    error = state.outcome and state.outcome.exception()
    headers = getattr(error, "litellm_response_headers", None) or {}  # those of error.response are empty
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers.get("retry-after", ""))))
    except ValueError:
        return min(LONGEST_WAIT, 2.0 ** (state.attempt_number - 1) * (0.5 + random.random() / 2))


def _content(response: Any) -> str:
    try:
        return response.choices[0].message.content or ""
    except (AttributeError, IndexError, TypeError):
        return ""


def _usage(response: Any) -> tuple[int | None, float | None]:
    tokens = getattr(getattr(response, "usage", None), "total_tokens", None)
    try:
        cost = float(_litellm().completion_cost(response))
    except Exception:  # a model whose price litellm does not know
        return tokens, None
    return tokens, cost


def _litellm() -> Any:
    """litellm, quiet, without telemetry, and with the price list that it brought."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    try:
        import litellm
    except ImportError:
        raise InputError("llm: live answers need litellm: pip install 'cmmlib[llm]', or use --llm recorded") from None
    litellm.suppress_debug_info = True
    litellm.telemetry = False  # type: ignore[attr-defined]
    return litellm
