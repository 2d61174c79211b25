"""Live questions to any language model that litellm knows: paced, within a budget, each answer kept as it arrives."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tqdm import tqdm

from cmmlib.errors import ProviderError
from cmmlib.process import ENDINGS
from cmmlib.texts.provider import NoText, Passing, Provider, Reply, Unanswered
from cmmlib.texts.questions import Question, checked_sentences
from cmmlib.texts.transcripts import Record, append, require_appendable

ATTEMPTS = 6  # of a request that was not answered: rate limit, time-out, server error, dropped connection
LONGEST_WAIT = 60.0  # seconds between two of them, whatever the server asks for
LONGEST_TRY = 180.0  # seconds after which none is made any more
MOST_FAILURES = 5  # classes in a row without an answer: the next would hardly have one


@dataclass(frozen=True)
class Budget:
    """What a session may use. `max_cost` is in US dollars, for models whose price litellm knows."""

    max_requests: int | None = None
    max_cost: float | None = None


@dataclass
class Spent:
    """What a session has used."""

    requests: int = 0
    kept: int = 0  # answers in the transcript
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
                raise OverBudget("the price of an answer is not known, so max_cost cannot be kept")
            requests = budget.max_requests is not None and self.requests >= budget.max_requests
            if self.stopped.is_set() or requests or (budget.max_cost is not None and self.cost >= budget.max_cost):
                raise OverBudget("the budget is used up")
            self.requests += 1

    def add(self, tokens: int | None, cost: float | None) -> None:
        """Count one answer's tokens and its cost in US dollars, None where litellm knows no price."""
        with self._lock:
            self.tokens += tokens or 0
            self.cost += cost or 0.0
            self.priced &= cost is not None

    def keep(self, transcript: Path, record: Record) -> None:
        """Add an answer to the transcript, and count it."""
        with self._lock:
            append(transcript, record)
            self.kept += 1


@dataclass(frozen=True)
class Session:
    """Where to ask, and how.

    Attributes:
        model: litellm's name, as in `openai/gpt-4o-mini`, `anthropic/...`, `ollama/...`.
        base_url: address of a server that speaks OpenAI's chat API.
        transcript: file that each answer is appended to as it arrives.
        concurrency: requests at a time.
        timeout: seconds for one whole request.
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


def ask(
    questions: dict[int, Question], session: Session, fits_context: Callable[[str], bool] = lambda text: True
) -> tuple[dict[int, Record], dict[int, str], Spent]:
    """Ask every question once, several at a time.

    A passing failure is tried again, after the time that the server asks for; an unusable answer is asked again once.
    Whatever fails for good is returned with its reason, and the rest goes on. Ctrl-C, or another signal that ends the
    program, asks nothing more, and waits for the answers that are under way, each of which is paid for and kept; a
    second one leaves them.

    Returns:
        Records by class, reasons by class that has none, and what was spent.

    Raises:
        InputError: the provider refuses (key, model, address), or max_cost is given and the price unknown; in one line.
        ProviderError: some classes in a row got no answer, and others would have been next.
        OSError: the transcript cannot be written; nothing is asked then.
    """
    require_appendable(session.transcript)
    provider = Provider(session.model, session.base_url, session.timeout)
    provider.require_name()
    if session.budget.max_cost is not None:
        provider.require_price()
    answering = _Answering(session, provider, fits_context)
    spent, found = answering.spent, _Found()
    pool, stopping = ThreadPoolExecutor(session.concurrency), ""
    try:
        pending = {pool.submit(answering.answer, question): c for c, question in questions.items()}
        with tqdm(total=len(pending), desc=f"asking {session.model}", unit="class", disable=None) as progress:
            while pending and found.in_a_row < MOST_FAILURES:
                done, _ = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
                for future in done:
                    found.add(pending.pop(future), future)
                    progress.update()
    except (KeyboardInterrupt, SystemExit):
        limit = f"{session.timeout:g} s at most"
        stopping = f"stopping: answers under way are waited for, {limit}; Ctrl-C again leaves them"
        raise
    finally:
        spent.stopped.set()
        _close(pool, provider, stopping)
    if pending:
        raise ProviderError(
            f"llm: {session.model} left {found.in_a_row} classes in a row without an answer, the last: {found.reason}; "
            f"{spent.kept} answers are kept in {session.transcript}, and the same command asks for the rest"
        )
    return found.records, {c: found.failed[c] for c in questions if c in found.failed}, spent


def _close(pool: ThreadPoolExecutor, provider: Provider, stopping: str) -> None:
    """Wait for the answers under way, after a line on it where a signal is why; a signal while it waits leaves them."""
    try:
        with _second_signals():
            if stopping:
                tqdm.write(stopping, file=sys.stderr)
            pool.shutdown(cancel_futures=True)
    except (KeyboardInterrupt, SystemExit):
        provider.leave()
        if not stopping:  # else the first is on its way
            raise


@contextmanager
def _second_signals() -> Iterator[None]:
    """Let a further signal end a block, also where the program, on its way out after a first, heeds none."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)] if is_main else []
    heeded = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}  # others end the program anyway
    for number in heeded:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)


@dataclass
class _Found:
    """What has come of the questions so far, by class."""

    records: dict[int, Record] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    in_a_row: int = 0  # failures since the last answer
    reason: str = ""  # of the last

    def add(self, c: int, future: Future[Record]) -> None:
        """Note what came of a class's question; what ends the session is raised."""
        try:
            self.records[c] = future.result()
            self.in_a_row = 0
        except OverBudget as error:
            self.failed[c] = str(error)
        except Unanswered as error:
            self.failed[c] = self.reason = str(error)
            self.in_a_row += 1


@dataclass
class _Asked:
    """What became of one question so far."""

    spent: Spent
    budget: Budget
    requests: int = 0
    reason: str = "no answer came"  # for which it was asked again

    def count(self) -> None:
        """Count a request, of the question and of the session."""
        self.spent.take(self.budget)
        self.requests += 1


@dataclass
class _Answering:
    """What the threads of a session share."""

    session: Session
    provider: Provider
    fits_context: Callable[[str], bool]
    spent: Spent = field(default_factory=Spent)

    def answer(self, question: Question) -> Record:
        """The checked answer, in the transcript; a bad one is asked again once."""
        asked = _Asked(self.spent, self.session.budget)
        try:
            return self._answer(question, asked)
        except OverBudget as error:
            known = f"not asked again: {error}; before that: {asked.reason}"
            raise OverBudget(known if asked.requests else f"not asked: {error}") from None

    def _answer(self, question: Question, asked: _Asked) -> Record:
        for _ in range(2):
            reply = self._request(question, asked)
            try:
                sentences = checked_sentences(reply.text, self.fits_context)
            except ValueError as error:
                asked.reason = str(error) if reply.cut_at is None else f"cut at {reply.cut_at:,} tokens"
                continue
            return self._keep(question, sentences, reply)
        raise Unanswered(f"unusable twice: {asked.reason}")

    def _request(self, question: Question, asked: _Asked) -> Reply:
        """A reply; passing failures are waited out."""
        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(LONGEST_TRY),
            wait=_delay,
            sleep=self.session.pause or self.spent.stopped.wait,  # type: ignore[arg-type]  # it says whether it was set
            retry=retry_if_exception_type(Passing),
        )
        try:
            return retrying(self._ask_once, question, asked)
        except RetryError as error:
            last = error.last_attempt
            raise Unanswered(f"no answer after {last.attempt_number} requests: {last.exception()}") from None

    def _ask_once(self, question: Question, asked: _Asked) -> Reply:
        try:
            reply = self.provider.ask(question.text, asked.count)
        except Passing as error:
            asked.reason = str(error)
            raise
        except NoText:
            self.spent.add(None, None)
            raise
        self.spent.add(reply.tokens, reply.cost)
        return reply

    def _keep(self, question: Question, sentences: list[str], reply: Reply) -> Record:
        record = Record(
            class_name=question.class_name,
            domain=question.domain,
            style=question.style,
            rivals=question.rivals,
            answer=tuple(sentences),
            model=self.session.model,
            tokens=reply.tokens,
            cost=reply.cost,
            date=datetime.now(UTC).date().isoformat(),
            origin="live",
        )
        self.spent.keep(self.session.transcript, record)
        return record


def _delay(state: RetryCallState) -> float:
    """Seconds to wait: what the server asks for, within reason, else twice as long each time, with jitter."""
    error = state.outcome and state.outcome.exception()
    asked = error.after if isinstance(error, Passing) else None
    own = 2.0 ** (state.attempt_number - 1) * (0.5 + random.random() / 2)
    return min(LONGEST_WAIT, own if asked is None else asked)
