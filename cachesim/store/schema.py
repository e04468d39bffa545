"""The schema of the run database, documented where it is made.

Numbers: tokens BIGINT; times BIGINT µs UTC (`*_us`), readable through the views; money DECIMAL(38,20) in the currency of the
tariff; prices per token. A *trace* is a log read and prepared once; a *run* is one replay of a trace under one or more
*variants* (policy × tariff set), plus the bounds `off` and `ideal`. A *sweep* is a run over a grid of variants that keeps sums
per model, principal and part of the log instead of one row per request. Views (v_*) are what people and other tools should read.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = 3

TABLES: Final = """
CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);

-- one row per prepared trace; digest = SHA-256 of inputs, reading options, tokenizers, calibration and body rules
CREATE TABLE traces (
  trace_no INTEGER PRIMARY KEY, digest VARCHAR NOT NULL UNIQUE, requests BIGINT NOT NULL,
  facts VARCHAR NOT NULL,              -- JSON: what was assumed and counted while reading
  body_rules VARCHAR NOT NULL,         -- JSON: the distinct body rule sets, position = rules_no
  markers VARCHAR NOT NULL             -- JSON: distinct marker facts [shape, type, ttl], position = marker number
);
CREATE TABLE trace_inputs (
  trace_no INTEGER NOT NULL, file_no INTEGER NOT NULL, name VARCHAR NOT NULL, bytes BIGINT NOT NULL,
  sha256 VARCHAR NOT NULL, log_format VARCHAR, records BIGINT NOT NULL, bad_lines BIGINT NOT NULL
);
CREATE TABLE trace_tokenizers (
  trace_no INTEGER NOT NULL, tokenizer_no INTEGER NOT NULL, source VARCHAR NOT NULL, version VARCHAR NOT NULL,
  exact BOOLEAN NOT NULL,              -- false: the embedded default, every count is an estimate
  -- of a calibrated one, which scales the counts of another for one model; null for all others
  counts_no INTEGER,                   -- the tokenizer_no whose counts it scales
  model VARCHAR, factor_e4 INTEGER,    -- factor in ten-thousandths
  origin VARCHAR,                      -- fitted | configured | inherited
  fitted_requests BIGINT,              -- requests the factor was fitted to
  checked_requests BIGINT, residual_median DOUBLE, residual_p95 DOUBLE   -- |estimate - reported| / reported on others
);
CREATE TABLE bad_lines (
  trace_no INTEGER NOT NULL, file_no INTEGER NOT NULL, line BIGINT NOT NULL, byte_offset BIGINT NOT NULL,
  reason VARCHAR NOT NULL, message VARCHAR NOT NULL, digest VARCHAR NOT NULL
);

-- one row per request; seq is the replay order (arrival, file, line), 0-based
CREATE TABLE requests (
  trace_no INTEGER NOT NULL, seq BIGINT NOT NULL, file_no INTEGER NOT NULL, line BIGINT NOT NULL, byte_offset BIGINT NOT NULL,
  log_format VARCHAR NOT NULL, request VARCHAR NOT NULL,
  at_us BIGINT NOT NULL, done_us BIGINT NOT NULL,     -- arrival; completion (= arrival where the log has no duration)
  principal VARCHAR, model VARCHAR, session VARCHAR,
  tags VARCHAR NOT NULL,                              -- JSON object of strings
  status INTEGER NOT NULL,
  succeeded BOOLEAN NOT NULL,                         -- successful: billed, in rates, and its writes are committed
  purpose VARCHAR, completion_window VARCHAR, batch_created_us BIGINT,
  prompt_tokens BIGINT,                               -- billing: as reported, else local_tokens; null: unknown, unpriced
  prompt_estimated BOOLEAN NOT NULL,                  -- true: prompt_tokens is the local count
  local_tokens BIGINT,                                -- local count of the whole prompt, calibrated; null: not counted
  completion_tokens BIGINT NOT NULL,                  -- as reported, else 0
  recorded_read_tokens BIGINT, recorded_creation_5m_tokens BIGINT, recorded_creation_1h_tokens BIGINT,
  recorded_creation_24h_tokens BIGINT, recorded_cost DECIMAL(38,20),
  body_state VARCHAR NOT NULL,                        -- ok | not_cacheable | unparseable | no_model
  query_marker INTEGER NOT NULL,                      -- 0 none, 1 cacheBreakpoint=lastUserMessage, 2 another value
  tokenizer_no INTEGER,                               -- null: model unmapped
  messages INTEGER, tools INTEGER                     -- how many the body has; null: not read
);
-- the prepared prompt per request and body rule set; nodes are block boundaries
CREATE TABLE prompts (
  trace_no INTEGER NOT NULL, seq BIGINT NOT NULL, rules_no INTEGER NOT NULL,
  end_node INTEGER NOT NULL,                          -- boundary after the last block, -1 without blocks
  block_count INTEGER NOT NULL,
  marker_blocks INTEGER[] NOT NULL, marker_facts INTEGER[] NOT NULL,   -- captured markers: block and marker number
  automatic INTEGER NOT NULL,                         -- marker number of the top-level marker, -1 none
  last_user INTEGER NOT NULL, last_system INTEGER NOT NULL, last_tool INTEGER NOT NULL,  -- blocks, -1 none
  ingress_error VARCHAR                               -- upstream's Messages ingress answers 400
);
CREATE TABLE nodes (
  trace_no INTEGER NOT NULL, node INTEGER NOT NULL, parent INTEGER NOT NULL,  -- parent -1: first block
  prefix INTEGER NOT NULL,             -- identity of the hash: nodes with equal digests share it
  kind UTINYINT NOT NULL, digest BLOB NOT NULL
);
-- cumulative_tokens: all blocks up to and including this boundary, as counted; v_node_tokens has them calibrated
CREATE TABLE node_tokens (
  trace_no INTEGER NOT NULL, tokenizer_no INTEGER NOT NULL, node INTEGER NOT NULL, cumulative_tokens BIGINT NOT NULL
);

-- counts remembered across runs; digest = BLAKE2b-128 of the text, never the text
CREATE TABLE token_counts (version VARCHAR NOT NULL, digest BLOB NOT NULL, tokens BIGINT NOT NULL);

CREATE TABLE runs (
  run_no INTEGER PRIMARY KEY, digest VARCHAR NOT NULL,   -- SHA-256 of trace, configuration and program version
  trace_no INTEGER NOT NULL, created_at TIMESTAMP NOT NULL DEFAULT current_timestamp, cachesim_version VARCHAR NOT NULL,
  options VARCHAR NOT NULL, assumptions VARCHAR NOT NULL, problems VARCHAR NOT NULL   -- JSON
);
CREATE TABLE variants (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL, kind VARCHAR NOT NULL,        -- policy | bound
  policy VARCHAR NOT NULL, tariff VARCHAR, markers VARCHAR NOT NULL, rules VARCHAR NOT NULL, -- JSON of every rule
  rules_no INTEGER NOT NULL,
  ttl VARCHAR                          -- lifetime given to every breakpoint, "15m" or "1h+5m" (tools and system + others); null: as marked
);
CREATE TABLE classified (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  outcome VARCHAR NOT NULL,            -- inactive | zero | read | create | read_and_create | rejected
  reason VARCHAR,                      -- why inactive, zero or rejected
  tiers VARCHAR NOT NULL,              -- TTL tiers of its breakpoints, e.g. 5m or 1h+5m; none
  read_tokens BIGINT NOT NULL, creation_5m_tokens BIGINT NOT NULL, creation_1h_tokens BIGINT NOT NULL,
  creation_24h_tokens BIGINT NOT NULL,                -- the classifier's split
  billed_read_tokens BIGINT NOT NULL, billed_creation_5m_tokens BIGINT NOT NULL, billed_creation_1h_tokens BIGINT NOT NULL,
  billed_creation_24h_tokens BIGINT NOT NULL, uncached_tokens BIGINT NOT NULL,  -- after the billing rule; they sum to prompt_tokens
  bill_state VARCHAR NOT NULL,         -- ok | capped | corrupt | voided
  committed BOOLEAN NOT NULL,          -- it succeeded and something was written or refreshed
  price_no INTEGER                     -- row of unit_prices; null for bounds and unpriced requests
);
-- exact price of each token class for one (base tariff row, cache tariff row) pair: charged = sum(tokens * price)
CREATE TABLE unit_prices (
  run_no INTEGER NOT NULL, price_no INTEGER NOT NULL, tariff VARCHAR NOT NULL, base_source VARCHAR NOT NULL, cache_source VARCHAR,
  assumed BOOLEAN NOT NULL,            -- the base price is an assumption (genai-prices), not from the user's ledger
  uncached DECIMAL(38,20) NOT NULL, read DECIMAL(38,20) NOT NULL, creation_5m DECIMAL(38,20) NOT NULL,
  creation_1h DECIMAL(38,20) NOT NULL, creation_24h DECIMAL(38,20) NOT NULL, completion DECIMAL(38,20) NOT NULL,
  creation_custom DECIMAL(38,20)       -- of a lifetime that upstream does not price; null: no multiplier is known for it
);
-- the index as it stands after the last event of the run, with upstream's columns
CREATE TABLE index_entries (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL,
  principal_id VARCHAR NOT NULL, virtual_model VARCHAR NOT NULL, tokenizer_version VARCHAR NOT NULL, prefix_hash BLOB NOT NULL,
  cumulative_token_count BIGINT NOT NULL, ttl_tier VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL, expires_at TIMESTAMPTZ NOT NULL
);
-- what a continuing run must know besides: responses that had not completed at the last arrival, and the entries they
-- touch as they were before (kind before; absent: no such row then)
CREATE TABLE index_in_flight (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL, kind VARCHAR NOT NULL,        -- before | write | refresh
  done_us BIGINT NOT NULL, seq BIGINT NOT NULL,
  principal_id VARCHAR NOT NULL, virtual_model VARCHAR NOT NULL, tokenizer_version VARCHAR NOT NULL, prefix_hash BLOB NOT NULL,
  tokens BIGINT, tier INTEGER, expires_us BIGINT NOT NULL, created_us BIGINT
);
"""

SWEEP_TABLES: Final = """
-- what a sweep keeps, per variant, group and price; only requests that are billed (succeeded, not rejected) unless a cell says otherwise
CREATE TABLE sweep_groups (
  run_no INTEGER NOT NULL, group_no INTEGER NOT NULL, model VARCHAR, principal VARCHAR,
  part VARCHAR NOT NULL                -- first | rest: before or after the instant that holds out the later part of the log
);
CREATE TABLE swept (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL, group_no INTEGER NOT NULL,
  price_no INTEGER,                    -- row of unit_prices; null for bounds and unpriced requests
  requests BIGINT NOT NULL, requests_failed BIGINT NOT NULL, requests_rejected BIGINT NOT NULL, requests_read BIGINT NOT NULL,
  prompt BIGINT NOT NULL, read BIGINT NOT NULL, c5 BIGINT NOT NULL, c1 BIGINT NOT NULL, c24 BIGINT NOT NULL,
  cx BIGINT NOT NULL,                  -- creation in a lifetime that upstream does not price
  uncached BIGINT NOT NULL, completion BIGINT NOT NULL, rejected_prompt BIGINT NOT NULL, rejected_completion BIGINT NOT NULL,
  estimated BIGINT NOT NULL, unknown BIGINT NOT NULL, local BIGINT NOT NULL, reported BIGINT NOT NULL,
  capped BIGINT NOT NULL, capped_tokens BIGINT NOT NULL, corrupt BIGINT NOT NULL, voided BIGINT NOT NULL,
  asked BIGINT NOT NULL,               -- requests that reached the cache: breakpoints, and every gate before the floor passed
  below_floor BIGINT NOT NULL,         -- of these, turned to zero by the floor
  near_5 BIGINT NOT NULL, near_10 BIGINT NOT NULL,    -- of `asked`, tokens up to the deepest breakpoint within ±5 % / ±10 % of the floor
  writes BIGINT NOT NULL,              -- index rows written by committed responses (upserts), failed requests included
  live_us BIGINT NOT NULL,             -- time that index rows are live within the log's span, summed over rows, µs
  dead_writes BIGINT NOT NULL,         -- billed writes that expired or were overwritten without being read, and their creation tokens
  dead_c5 BIGINT NOT NULL, dead_c1 BIGINT NOT NULL, dead_c24 BIGINT NOT NULL, dead_cx BIGINT NOT NULL,
  open_writes BIGINT NOT NULL,         -- billed writes not read yet and still live at the end of the log
  -- reads by the time since the entry was last written or refreshed: under 5m, 1h, 8h, and more
  gap_1_requests BIGINT NOT NULL, gap_2_requests BIGINT NOT NULL, gap_3_requests BIGINT NOT NULL, gap_4_requests BIGINT NOT NULL,
  gap_1_tokens BIGINT NOT NULL, gap_2_tokens BIGINT NOT NULL, gap_3_tokens BIGINT NOT NULL, gap_4_tokens BIGINT NOT NULL,
  -- reads by the least walk-back that finds their entry: up to 20, 40, 80, and more
  reach_1_requests BIGINT NOT NULL, reach_2_requests BIGINT NOT NULL, reach_3_requests BIGINT NOT NULL,
  reach_4_requests BIGINT NOT NULL, reach_1_tokens BIGINT NOT NULL, reach_2_tokens BIGINT NOT NULL,
  reach_3_tokens BIGINT NOT NULL, reach_4_tokens BIGINT NOT NULL
);
"""

SENSITIVITY_TABLE: Final = """
-- what a replay's first policy does with every local count moved, per tariff set, model and price; sums over billed requests
CREATE TABLE sensitivity (
  run_no INTEGER NOT NULL, variant_no INTEGER NOT NULL,
  percent INTEGER NOT NULL,            -- of the local counts: 95, 100 (the run itself) or 105
  model VARCHAR,
  price_no INTEGER,                    -- row of unit_prices; null for unpriced requests
  requests BIGINT NOT NULL,
  asked BIGINT NOT NULL,               -- requests that reached the cache
  below_floor BIGINT NOT NULL,         -- of these, turned to zero by the floor
  requests_read BIGINT NOT NULL, prompt BIGINT NOT NULL, read BIGINT NOT NULL, c5 BIGINT NOT NULL, c1 BIGINT NOT NULL,
  c24 BIGINT NOT NULL, uncached BIGINT NOT NULL, completion BIGINT NOT NULL,
  changed BIGINT NOT NULL,             -- requests with another outcome or reason than at 100
  floor_up BIGINT NOT NULL,            -- requests below the floor at 100, and no longer
  floor_down BIGINT NOT NULL           -- requests below the floor that were not at 100
);
"""
"""New in version 3."""

FROM_VERSION_1: Final = """
ALTER TABLE variants ADD COLUMN ttl VARCHAR;
ALTER TABLE unit_prices ADD COLUMN creation_custom DECIMAL(38,20);
"""
"""What version 2 added to existing tables; SWEEP_TABLES are new in it."""

FROM_VERSION_2: Final = """
ALTER TABLE trace_tokenizers ADD COLUMN counts_no INTEGER;
ALTER TABLE trace_tokenizers ADD COLUMN model VARCHAR;
ALTER TABLE trace_tokenizers ADD COLUMN factor_e4 INTEGER;
ALTER TABLE trace_tokenizers ADD COLUMN origin VARCHAR;
ALTER TABLE trace_tokenizers ADD COLUMN fitted_requests BIGINT;
ALTER TABLE trace_tokenizers ADD COLUMN checked_requests BIGINT;
ALTER TABLE trace_tokenizers ADD COLUMN residual_median DOUBLE;
ALTER TABLE trace_tokenizers ADD COLUMN residual_p95 DOUBLE;
ALTER TABLE requests ADD COLUMN messages INTEGER;
ALTER TABLE requests ADD COLUMN tools INTEGER;
"""
"""What version 3 added to existing tables."""

VIEWS: Final = """
CREATE OR REPLACE VIEW v_runs AS
SELECT runs.run_no, runs.created_at, v.policy, v.tariff, v.markers, t.requests,
  (SELECT string_agg(i.name, ', ' ORDER BY i.file_no) FROM trace_inputs i WHERE i.trace_no = runs.trace_no) AS files
FROM runs JOIN traces t USING (trace_no) JOIN variants v USING (run_no) WHERE v.kind = 'policy'
ORDER BY runs.run_no, v.variant_no;
-- cumulative tokens per tokenizer, calibrated ones scaled; half up, as cachesim.core.calibration.scaled
CREATE OR REPLACE VIEW v_node_tokens AS
SELECT t.trace_no, t.tokenizer_no, n.node,
  (n.cumulative_tokens * coalesce(t.factor_e4, 10000) + 5000) // 10000 AS cumulative_tokens
FROM trace_tokenizers t
JOIN node_tokens n ON n.trace_no = t.trace_no AND n.tokenizer_no = coalesce(t.counts_no, t.tokenizer_no);
CREATE OR REPLACE VIEW v_bad_lines AS
SELECT runs.run_no, i.name AS file, b.line, b.byte_offset, b.reason, b.message, b.digest
FROM bad_lines b JOIN trace_inputs i USING (trace_no, file_no) JOIN runs USING (trace_no)
ORDER BY runs.run_no, b.file_no, b.line;
-- one row per classified request. billed: it succeeded and the policy did not reject it. list, charged and delta are
-- null where nothing is billed or no price is known; what a rejected request would have cost is in rejected_list.
CREATE OR REPLACE VIEW v_requests AS
SELECT runs.digest AS run, c.run_no, c.variant_no, v.policy, v.tariff, v.kind, v.markers, c.seq, r.request,
  r.at_us, make_timestamptz(r.at_us) AS arrived_at, make_timestamptz(r.done_us) AS completed_at,
  r.principal, r.model, r.session, r.log_format, r.tags, r.status, r.succeeded, c.tiers, c.outcome, c.reason,
  r.succeeded AND c.outcome <> 'rejected' AS billed,
  r.prompt_tokens, r.prompt_estimated, r.local_tokens, r.completion_tokens,
  c.read_tokens, c.creation_5m_tokens, c.creation_1h_tokens, c.creation_24h_tokens,
  CASE WHEN r.prompt_tokens IS NOT NULL THEN greatest(
    r.prompt_tokens - c.read_tokens - c.creation_5m_tokens - c.creation_1h_tokens - c.creation_24h_tokens, 0) END
    AS uncached_tokens,
  c.billed_read_tokens, c.billed_creation_5m_tokens, c.billed_creation_1h_tokens, c.billed_creation_24h_tokens,
  c.uncached_tokens AS billed_uncached_tokens, c.bill_state, c.committed,
  CASE WHEN billed THEN r.prompt_tokens * p.uncached + r.completion_tokens * p.completion END AS list,
  CASE WHEN billed THEN c.uncached_tokens * p.uncached + c.billed_read_tokens * p.read
    + c.billed_creation_5m_tokens * p.creation_5m + c.billed_creation_1h_tokens * p.creation_1h
    + c.billed_creation_24h_tokens * p.creation_24h + r.completion_tokens * p.completion END AS charged,
  charged - list AS delta,
  CASE WHEN c.outcome = 'rejected' THEN r.prompt_tokens * p.uncached + r.completion_tokens * p.completion END
    AS rejected_list,
  r.recorded_cost, r.recorded_read_tokens, r.recorded_creation_5m_tokens, r.recorded_creation_1h_tokens,
  r.recorded_creation_24h_tokens
FROM classified c
JOIN variants v USING (run_no, variant_no)
JOIN runs USING (run_no)
JOIN requests r ON r.trace_no = runs.trace_no AND r.seq = c.seq
LEFT JOIN unit_prices p ON p.run_no = c.run_no AND p.price_no = c.price_no;
-- one row per variant, group and price of a sweep; floor null: the tariff's own, ttl null: as marked. list and charged are
-- null where no price is known, charged also where tokens were created in a lifetime without a multiplier.
CREATE OR REPLACE VIEW v_sweep AS
SELECT runs.digest AS run, w.run_no, w.variant_no, v.kind, v.policy, v.tariff, v.markers,
  json_extract(v.rules, '$.min_prefix_tokens')::BIGINT AS floor, v.ttl, json_extract(v.rules, '$.walk_back')::BIGINT AS walk_back,
  json_extract_string(v.rules, '$.window') AS "window", g.model, g.principal, g.part,
  w.requests, w.requests_failed, w.requests_rejected, w.requests_read, w.prompt AS prompt_tokens, w.read AS read_tokens,
  w.c5 AS creation_5m_tokens, w.c1 AS creation_1h_tokens, w.c24 AS creation_24h_tokens, w.cx AS creation_custom_tokens,
  w.uncached AS uncached_tokens, w.completion AS completion_tokens, w.asked, w.asked - w.below_floor AS eligible, w.below_floor,
  w.near_5, w.near_10, w.writes AS index_writes, w.live_us, w.live_us / nullif(json_extract(runs.options, '$.span_us')::DOUBLE, 0)
    AS live_entries, w.dead_writes, w.dead_c5 + w.dead_c1 + w.dead_c24 + w.dead_cx AS dead_tokens, w.open_writes,
  w.gap_1_requests, w.gap_2_requests, w.gap_3_requests, w.gap_4_requests,
  w.gap_1_tokens, w.gap_2_tokens, w.gap_3_tokens, w.gap_4_tokens,
  w.reach_1_requests, w.reach_2_requests, w.reach_3_requests, w.reach_4_requests,
  w.reach_1_tokens, w.reach_2_tokens, w.reach_3_tokens, w.reach_4_tokens,
  w.prompt * p.uncached + w.completion * p.completion AS list,
  w.uncached * p.uncached + w.read * p.read + w.c5 * p.creation_5m + w.c1 * p.creation_1h + w.c24 * p.creation_24h
    + CASE WHEN w.cx = 0 THEN 0 ELSE w.cx * p.creation_custom END + w.completion * p.completion AS charged,
  charged - list AS delta
FROM swept w
JOIN variants v USING (run_no, variant_no)
JOIN sweep_groups g USING (run_no, group_no)
JOIN runs USING (run_no)
LEFT JOIN unit_prices p ON p.run_no = w.run_no AND p.price_no = w.price_no;
"""
