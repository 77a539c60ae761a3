"""Requests, minute by minute: everyday traffic, what events make of it, and the retries that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flows.simulate import effects
from flows.simulate.company import Company, Workload
from flows.simulate.effects import Live
from flows.simulate.failures import FAILURES, everyday
from flows.simulate.incidents import Planned
from flows.simulate.rhythm import level_at, week_of
from flows.simulate.rows import ATTEMPT_BITS, INDEX_BITS, SOURCE_BITS, Bools, Floats, Ints, Rows, concat, uniform

MINUTE_MS = 60_000

MAX_ATTEMPTS = 3
RETRY_SHARE = 0.85
"""Part of the retryable failures that clients try again."""

GIANT_SHARE = 0.002
"""Part of the requests with an input 10 to 20 times the usual (a pasted log, a whole repository)."""

MAX_FRESH, MAX_OUTPUT = 150_000, 8_192
"""Tokens: what fits a 200k context beside a prefix, and a common output limit."""

SESSION_GAP_MS = 5_000.0

_MILD = np.exp(-0.5 * 0.12**2), np.exp(-0.5 * 0.05**2)
"""Corrections that keep the mean of the lognormal noise at 1."""


class Traffic:
    """All requests of a company.

    Everyday traffic of a minute depends on the seed and the minute alone. What an event does to a request is decided
    by numbers that belong to that request, so whatever an event does not touch stays byte-identical.

    Parameters
    ----------
    company, seed, rate
        Who, which random numbers, and mean requests per second on the average of a week.
    start_ns
        Start of the simulation, a multiple of a second.
    planned
        What happens.
    """

    def __init__(self, company: Company, seed: int, rate: float, start_ns: int, planned: Sequence[Planned]) -> None:
        self.seed, self.start_s = seed, start_ns / 1e9
        base = company.workloads
        self.base = len(base)
        self.workloads: list[Workload] = list(base)
        self.lives = self._resolve(planned, start_ns)
        everyone = self.workloads
        share = np.array([w.share for w in base])
        self.per_minute = share / share.sum() * rate * 60
        self.weeks = np.stack([week_of(w.rhythm, w.utc_offset_h) for w in base])
        self.slow_noise = np.zeros(self.base)
        self.shared_noise = 0.0
        self.pending: Rows | None = None

        def column(name: str) -> Floats:
            return np.array([float(getattr(w, name)) for w in everyone])

        self.users, self.prefixes = column("users").astype(np.int64), column("prefixes").astype(np.int64)
        self.prefix_tokens, self.hit_rate = column("prefix_tokens"), column("hit_rate")
        self.fresh_mu, self.fresh_sigma = np.log(column("fresh")), column("fresh_sigma")
        self.output_mu, self.output_sigma = np.log(np.maximum(column("output"), 1e-9)), column("output_sigma")
        self.session, self.error_rate = column("session"), column("error_rate")
        self.quota_used = column("quota_used")
        entries = [w.catalogue_entry for w in everyone]
        self.ttft_ms = np.array([e.ttft_ms for e in entries])
        self.ms_per_token = np.array([e.ms_per_token for e in entries])
        self.reasoning = np.array([e.reasoning for e in entries])
        self.providers = [w.provider for w in everyone]
        self.everyday = {p: everyday(p) for p in dict.fromkeys(self.providers)}
        self.provider_code = np.array([list(self.everyday).index(p) for p in self.providers])
        self.retried = np.array([False, *(f.retried for f in FAILURES)])
        self.fail_ms = np.array([0.0, *(f.latency_ms for f in FAILURES)])
        self.back_off_ms = np.array([0.0, *(float(max(f.retry_after_ms, 800)) for f in FAILURES)])

    def _resolve(self, planned: Sequence[Planned], start_ns: int) -> list[Live]:
        """Resolve events, and append the workloads that requests turn into under them."""
        becomes: list[dict[int, int]] = []
        for p in planned:
            turns = {}
            for i in np.flatnonzero(effects.scope_of(self.workloads[: self.base], p)).tolist():
                changed = effects.variant(self.workloads[i], p.way)
                if changed is not None:
                    turns[i] = len(self.workloads)
                    self.workloads.append(replace(self.workloads[i], **changed))  # type: ignore[arg-type]
            becomes.append(turns)
        return [
            Live(
                p,
                number,
                (p.start_ns - start_ns) // 1_000_000,
                (p.end_ns - start_ns) // 1_000_000,
                # Of what others have turned requests into, an event takes what fits its dimensions as well.
                effects.scope_of(self.workloads, p),
                np.array([becomes[number].get(i, i) for i in range(len(self.workloads))]),
                effects.failures_of(self.workloads, p),
            )
            for number, p in enumerate(planned)
        ]

    # ------------------------------------------------------------------ a minute
    def minute(self, i: int) -> Rows:
        """Requests that end in minute i, in order of their end; minutes must be asked for one after the other."""
        t0, t1 = i * MINUTE_MS, (i + 1) * MINUTE_MS
        wanted = self.wanted(i)
        active = [e for e in self.lives if e.start_ms < t1 + 600_000 and e.end_ms > t0]
        parts = [self._sample(np.random.SeedSequence([self.seed, 3, i]), wanted, t0, t1, i, 0)]
        for live in active:
            begin, end = max(t0, live.start_ms), min(t1, live.end_ms)
            if begin >= end:
                continue
            more = self.more(live, i, wanted) * ((end - begin) / MINUTE_MS)
            if more.any():
                seeds = np.random.SeedSequence([self.seed, 4, i, live.number])
                extra = self._sample(seeds, more, begin, end, i, live.number % 255 + 1)
                effects.shape_extra(live, extra, self.users)
                parts.append(extra)
        fresh = concat(parts)
        for live in active:
            fresh = fresh.take(self._kept(live, fresh, i))
        done = self._with_retries(fresh, active)
        if self.pending is not None:
            done = concat([self.pending, done])
        later = done.at_ms >= t1
        self.pending = done.take(later)
        now = done.take(~later)
        return now.take(np.argsort((now.at_ms << 20) | (now.id & 0xFFFFF), kind="stable"))

    def wanted(self, i: int) -> Floats:
        """Expected everyday requests of minute i by workload; moves the slow noise on."""
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 5, i])))
        steps = rng.normal(size=self.base + 1)
        fade, company_fade = 0.977, 0.99  # half-lives of 30 and 70 minutes
        self.slow_noise = fade * self.slow_noise + np.sqrt(1 - fade**2) * 0.12 * steps[:-1]
        self.shared_noise = company_fade * self.shared_noise + float(np.sqrt(1 - company_fade**2) * 0.05 * steps[-1])
        self.level = level_at(self.weeks, self.start_s + i * 60 + 30)
        noise = np.exp(self.slow_noise) * _MILD[0] * np.exp(self.shared_noise) * _MILD[1]
        self.everyday_wanted: Floats = np.asarray(self.per_minute * self.level * noise)
        return self.everyday_wanted

    def _clock_ratio(self, live: Live, i: int) -> Floats:
        """How demand changes when the clocks of a daylight-saving shift are put forward."""
        moved = level_at(self.weeks, self.start_s + i * 60 + 30 + live.size * 3600)
        return np.asarray(np.where(live.scope[: self.base], moved / np.maximum(self.level, 1e-9), 1.0))

    def more(self, live: Live, i: int, wanted: Floats) -> Floats:
        """Requests that an event adds to minute i, by workload."""
        if live.way == "batch":
            return np.asarray(self.per_minute * live.size * live.scope[: self.base])
        if live.way == "clock":
            return np.asarray(wanted * np.maximum(self._clock_ratio(live, i) - 1, 0))
        return np.asarray(wanted * live.scope[: self.base] * max(effects.factor(live) - 1, 0))

    def _kept(self, live: Live, rows: Rows, i: int) -> Bools:
        """Which requests an event lets happen at all."""
        inside = live.scope[rows.leaf] & (rows.at_ms >= live.start_ms) & (rows.at_ms < live.end_ms)
        if live.way == "clock":
            return np.asarray(~inside | (live.chance(rows) < self._clock_ratio(live, i)[rows.leaf]))
        return np.asarray(~inside | (live.chance(rows) < effects.factor(live)))

    # ------------------------------------------------------------------ what requests look like
    def _sample(
        self, seeds: np.random.SeedSequence, wanted: Floats, t0: int, t1: int, minute: int, source: int
    ) -> Rows:
        rng = np.random.Generator(np.random.PCG64(seeds))
        sessions = rng.poisson(wanted / self.session[: self.base])
        owner = np.repeat(np.arange(self.base), sessions)
        length = rng.geometric(1 / self.session[owner])
        user = (self.users[owner] ** rng.random(len(owner))).astype(np.int64) - 1
        prefix = (self.prefixes[owner] * rng.random(len(owner)) ** 2).astype(np.int64)
        begin = rng.random(len(owner)) * (t1 - t0)
        leaf = np.repeat(owner, length)
        n = len(leaf)
        first = np.repeat(np.cumsum(length) - length, length)
        order = np.arange(n) - first
        gaps = rng.exponential(SESSION_GAP_MS, n)
        # A session that runs over the end goes on at the beginning, which keeps the mean rate.
        at = t0 + ((np.repeat(begin, length) + gaps * order) % (t1 - t0)).astype(np.int64)
        normal = rng.normal(size=(4, n))
        chance = rng.random((4, n))
        fresh = np.exp(self.fresh_mu[leaf] + self.fresh_sigma[leaf] * normal[0])
        giant = chance[0] < GIANT_SHARE
        fresh[giant] *= 10 + 5000 * chance[0][giant]
        output = np.exp(self.output_mu[leaf] + self.output_sigma[leaf] * normal[1])
        hit = self.hit_rate[leaf]
        hit = np.where(order > 0, hit + 0.6 * (1 - hit) * (hit > 0), hit)
        slow = np.where(chance[1] < 0.005, 4.0, 1.0)
        used = self.quota_used[leaf] * np.minimum(self.level, 2.0)[leaf] ** 0.6 * (1 + 0.05 * normal[3])
        return Rows(
            id=(minute << (SOURCE_BITS + INDEX_BITS + ATTEMPT_BITS))
            | (source << (INDEX_BITS + ATTEMPT_BITS))
            | (np.arange(n) << ATTEMPT_BITS),
            at_ms=at,
            leaf=leaf,
            user=np.repeat(user, length),
            attempt=np.ones(n, dtype=np.int64),
            prefix=np.repeat(prefix, length),
            salt=np.zeros(n, dtype=np.int64),
            prefix_tokens=self.prefix_tokens[leaf],
            fresh=np.clip(fresh, 3, MAX_FRESH),
            output=np.where(self.ms_per_token[leaf] > 0, np.clip(output, 1, MAX_OUTPUT), 0),
            reasoning=np.clip(self.reasoning[leaf] * (0.6 + 0.8 * chance[3]), 0, 0.95),
            u_hit=chance[2],
            hit=hit,
            ttft_ms=self.ttft_ms[leaf] * np.exp(0.35 * normal[2]) * slow,
            ms_per_token=self.ms_per_token[leaf] * np.exp(0.15 * normal[3]),
            u_fail=rng.random(n),
            failure=np.zeros(n, dtype=np.int64),
            used=np.clip(used, 0.01, 0.93),
            price=np.ones(n),
            garbage=np.zeros(n, dtype=np.int64),
        )

    def _happen(self, rows: Rows, active: Sequence[Live]) -> Rows:
        """Everyday failures, then what events do."""
        rows = rows.copy()
        rate = self.error_rate[rows.leaf]
        failing = np.flatnonzero(rows.u_fail < rate)
        where = rows.u_fail[failing] / rate[failing]
        codes = self.provider_code[rows.leaf[failing]]
        for code, (numbers, shares) in enumerate(self.everyday.values()):
            mine = codes == code
            picked = np.searchsorted(shares, where[mine], side="right")
            rows.failure[failing[mine]] = np.array(numbers)[np.minimum(picked, len(numbers) - 1)]
        for live in active:
            effects.apply(live, rows)
        return rows

    def _with_retries(self, fresh: Rows, active: Sequence[Live]) -> Rows:
        tried = self._happen(fresh, active)
        parts = [tried]
        for attempt in range(2, MAX_ATTEMPTS + 1):
            again = np.flatnonzero(self.retried[tried.failure] & (uniform(tried.id, 900 + attempt) < RETRY_SHARE))
            if len(again) == 0:
                break
            failure, fresh = tried.failure[again], fresh.take(again)
            fresh.id += 1
            fresh.attempt[:] = attempt
            wait = self.back_off_ms[failure] * (0.7 + 0.6 * uniform(fresh.id, 920)) * (attempt - 1)
            fresh.at_ms += (wait + fresh.ttft_ms + fresh.output * fresh.ms_per_token).astype(np.int64)
            fresh.u_fail = uniform(fresh.id, 930)
            tried = self._happen(fresh, active)
            parts.append(tried)
        return concat(parts)

    def demand(self, i: int) -> Floats:
        """Requests of minute i (the last one made) relative to the weekly mean, by workload, events included."""
        wanted = self.everyday_wanted
        total = wanted.copy()
        for live in self.lives:
            begin, end = max(i * MINUTE_MS, live.start_ms), min((i + 1) * MINUTE_MS, live.end_ms)
            if begin < end:
                part = (end - begin) / MINUTE_MS
                lost = wanted * live.scope[: self.base] * max(1 - effects.factor(live), 0)
                total += (self.more(live, i, wanted) - lost) * part
        return np.asarray(total / self.per_minute)


def ends_at(rows: Rows) -> Ints:
    """Order in which producers send: by end of the call, 5 % of them up to 4 s late. Shape (n,) of positions."""
    delayed = uniform(rows.id, 940)
    delay = np.where(delayed < 0.05, 300 + (delayed / 0.05 * 3_700), 0).astype(np.int64)
    return np.argsort(rows.at_ms + delay, kind="stable")
