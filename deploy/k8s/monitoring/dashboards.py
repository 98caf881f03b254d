"""What the dashboards show, and why; scripts/make_dashboards.py makes Grafana's JSON of it.

In an expression, NS stands for the chosen namespaces and [R] for the window of rates. Labels
are those of pod-monitors.yaml: job is a pod's app.kubernetes.io/name.
"""

import dataclasses

ROUTER = 'NS,job="switchyard-router"'
ATTENTION = 'NS,job="switchyard-attention-worker"'
EXPERT = 'NS,job="switchyard-expert-worker"'


@dataclasses.dataclass
class Panel:
    title: str
    unit: str
    queries: list  # (legend, expression)
    why: str
    stacked: bool = False


@dataclasses.dataclass
class Row:
    title: str
    panels: list


@dataclasses.dataclass
class Dashboard:
    name: str
    title: str
    why: str
    rows: list


def quantiles(metric, labels, by="", points=(0.5, 0.95, 0.99)):
    """Quantiles of a histogram, one query a point, of each value of label `by`."""
    group = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [(f"{legend}p{round(q * 100)}",
             f"histogram_quantile({q}, sum by ({group}) "
             f"(rate({metric}_bucket{{{labels}}}[R])))") for q in points]


def mean(metric, labels, by):
    """The mean of a histogram, of each value of label `by`."""
    return [(f"{{{{{by}}}}}",
             f"sum by ({by}) (rate({metric}_sum{{{labels}}}[R])) / "
             f"(sum by ({by}) (rate({metric}_count{{{labels}}}[R])) > 0)")]


def rate(metric, labels, by):
    return [(f"{{{{{by}}}}}", f"sum by ({by}) (rate({metric}{{{labels}}}[R]))")]


def value(metric, labels, by, how="sum"):
    return [(f"{{{{{by}}}}}", f"{how} by ({by}) ({metric}{{{labels}}})")]


OVERVIEW = Dashboard(
    "overview", "Overview", "Is it up, is it fast, is it full?", [
        Row("Is it up?", [
            Panel("Attention workers, as a router sees them", "short",
                  value("switchyard_router_workers", ROUTER, "state", "max"),
                  "waiting_experts: some expert has no holder, and requests wait."),
            Panel("Processes", "short",
                  [("{{job}}", 'sum by (job) (up{NS,job=~"switchyard-.*"})')],
                  "Pods that Prometheus reaches."),
            Panel("Alerts", "short",
                  [("{{alertname}}", 'sum by (alertname) (ALERTS{alertname=~"Switchyard.*",'
                    'alertstate="firing"}) or vector(0)')],
                  "Each has its runbook in the rule's annotation."),
        ]),
        Row("Is it fast?", [
            Panel("Time to first token", "s",
                  quantiles("vllm:time_to_first_token_seconds", ROUTER),
                  "From the request's last byte, queueing and reading the prompt included."),
            Panel("Time between tokens", "s",
                  quantiles("vllm:inter_token_latency_seconds", ROUTER),
                  "What a reader sees. Explained on the dashboard One slow token."),
            Panel("Requests, whole", "s",
                  quantiles("vllm:e2e_request_latency_seconds", ROUTER),
                  "From the first byte to the last."),
        ]),
        Row("How much?", [
            Panel("Tokens a second", "short", [
                ("generated",
                 f"sum(rate(vllm:generation_tokens_total{{{ROUTER}}}[R]))"),
                ("prompt", f"sum(rate(vllm:prompt_tokens_total{{{ROUTER}}}[R]))"),
                ("prompt, from a cache",
                 f"sum(rate(vllm:prompt_tokens_cached_total{{{ROUTER}}}[R]))")],
                  "Cached tokens cost nothing but memory."),
            Panel("Requests", "short", [
                ("running", f"sum(vllm:num_requests_running{{{ROUTER}}})"),
                ("waiting", f"sum(vllm:num_requests_waiting{{{ROUTER}}})")],
                  "Waiting: for memory of an attention worker."),
            Panel("Answers by end", "reqps",
                  rate("vllm:request_success_total", ROUTER, "finished_reason"),
                  "error: the request failed after it was accepted."),
            Panel("HTTP by status", "reqps",
                  rate("http_requests_total", ROUTER + ',handler=~"/v1/.*"', "status"),
                  "429: the queue is full. 503: no worker, or draining."),
        ]),
        Row("Is it full?", [
            Panel("Expert pool busy", "percentunit", [
                ("busy", "switchyard:expert_pool_busy:ratio{NS}"),
                ("target", "vector(0.6)")],
                  "Share of time that expert workers compute. What the pool is scaled by."),
            Panel("State memory used", "percentunit",
                  value("vllm:kv_cache_usage_perc", ATTENTION, "pod"),
                  "At 1 new requests wait."),
            Panel("CPUs", "short",
                  [("{{pod}}", 'rate(process_cpu_seconds_total{NS,job=~"switchyard-.*"}[R])')],
                  "Workers that spin look busy here: the first panel is the truth."),
            Panel("Resident memory", "bytes",
                  [("{{pod}}", 'process_resident_memory_bytes{NS,job=~"switchyard-.*"}')],
                  "Weights, states and scratch. Decided at start: it should not creep."),
        ]),
    ])

SLOW_TOKEN = Dashboard(
    "slow-token", "One slow token", "Where a token's time goes, hop by hop, top down: the "
    "first row that grew is where to look.", [
        Row("1. The user's view, and the attention worker's", [
            Panel("Between tokens: router and attention worker, p99", "s", [
                *[("router", q) for _, q in quantiles(
                    "vllm:inter_token_latency_seconds", ROUTER, points=(0.99,))],
                *[("attention worker", q) for _, q in quantiles(
                    "vllm:inter_token_latency_seconds", ATTENTION, points=(0.99,))]],
                  "Apart: the network between them, or the router's CPUs. Together: below."),
            Panel("Before the first token", "s", [
                ("queued", f"sum(rate(vllm:request_queue_time_seconds_sum{{{ATTENTION}}}[R])) / "
                 f"(sum(rate(vllm:request_queue_time_seconds_count{{{ATTENTION}}}[R])) > 0)"),
                ("reading the prompt",
                 f"sum(rate(vllm:request_prefill_time_seconds_sum{{{ATTENTION}}}[R])) / "
                 f"(sum(rate(vllm:request_prefill_time_seconds_count{{{ATTENTION}}}[R])) > 0)")],
                  "Means. Queued: no memory for another state.", stacked=True),
        ]),
        Row("2. A step of the model", [
            Panel("Step", "s", quantiles("switchyard_engine_step_seconds", ATTENTION),
                  "All sequences advance in a step together: a token waits for one."),
            Panel("Tokens in a step", "short",
                  mean("vllm:iteration_tokens_total", ATTENTION, "pod"),
                  "Long prompts come in chunks beside others' tokens, and lengthen steps."),
            Panel("A step, by part", "s", [
                ("{{part}}", "sum by (part) (rate(switchyard_engine_step_part_seconds_total"
                 f"{{{ATTENTION}}}[R])) / on () group_left () "
                 f"(sum(rate(switchyard_engine_step_seconds_count{{{ATTENTION}}}[R])) > 0)")],
                  "Mean. dispatch: between a layer and its experts. routed_experts: the "
                  "slowest holder, computing.", stacked=True),
        ]),
        Row("3. A layer's dispatch", [
            Panel("One dispatch, whole", "s",
                  quantiles("switchyard_moe_dispatch_seconds", ATTENTION),
                  "One for each of 48 layers, one after the other: x 48 is a step's share."),
            Panel("Its parts, mean", "s",
                  mean("switchyard_moe_dispatch_part_seconds", ATTENTION, "part"),
                  "wait: nothing left to do here but wait for the slowest holder."),
            Panel("What went wrong", "short", [
                ("rows sent again", f"sum(rate(switchyard_moe_resent_pairs_total{{{ATTENTION}}}[R]))"),
                ("hedges", f"sum(rate(switchyard_moe_hedges_total{{{ATTENTION}}}[R]))"),
                ("late replies", f"sum(rate(switchyard_moe_late_replies_total{{{ATTENTION}}}[R]))"),
                ("reconnects",
                 f"sum(rate(switchyard_expert_worker_reconnects_total{{{ATTENTION}}}[R]))")],
                  "Each costs the tokens that were in flight a round trip or more."),
        ]),
        Row("4. One call to an expert worker", [
            Panel("Phases, mean of all workers", "s",
                  mean("switchyard_expert_dispatch_seconds", ATTENTION, "phase"),
                  "encode: our thread. wire_out, wire_back: network and wake-ups. queue, "
                  "compute: the worker, by its own clock. accept: our thread, again.",
                  stacked=True),
            Panel("Compute by worker, p99", "s",
                  quantiles("switchyard_expert_dispatch_seconds", ATTENTION +
                            ',phase="compute"', "worker", (0.99,)),
                  "One above the others: a slow machine, or more rows than its share."),
            Panel("Wire by worker, p99", "s",
                  quantiles("switchyard_expert_dispatch_seconds", ATTENTION +
                            ',phase=~"wire_.*"', "worker", (0.99,)),
                  "One above the others: its network, or its CPUs asleep."),
        ]),
        Row("5. The expert workers themselves", [
            Panel("Queue by pod, p99", "s",
                  quantiles("switchyard_expert_queue_seconds", EXPERT, "pod", (0.99,)),
                  "Waiting for another attention worker's rows: the pool is too small."),
            Panel("Compute by pod, p99", "s",
                  quantiles("switchyard_expert_compute_seconds", EXPERT, "pod", (0.99,)),
                  "One call. Bound by memory bandwidth for few rows."),
            Panel("Rows in a call", "short", [
                ("{{pod}}", f"sum by (pod) (rate(switchyard_expert_rows_total{{{EXPERT}}}[R])) / "
                 f"(sum by (pod) (rate(switchyard_expert_batches_total{{{EXPERT}}}[R])) > 0)")],
                  "More rows a call: weights are read once for all of them."),
        ]),
    ])

EXPERTS = Dashboard(
    "experts", "Expert heat and replication", "Who holds what, and who does the work.", [
        Row("Who holds what", [
            Panel("Experts held", "short", value("switchyard_expert_held_experts", EXPERT, "pod"),
                  "(layer, expert) pairs. Their sum over all pods / (layers x experts) is the "
                  "mean number of copies."),
            Panel("Their bytes", "bytes",
                  value("switchyard_expert_resident_bytes", EXPERT, "pod"), "Weights."),
            Panel("Loading", "percentunit",
                  value("switchyard_loading_progress", EXPERT, "pod"),
                  "1: whole share loaded."),
        ]),
        Row("Copies", [
            Panel("Experts with fewer copies than they should have", "short", [
                ("experts", f"max(switchyard_experts_under_replicated{{{EXPERT}}})")],
                  "0, but for the seconds after somebody came or went."),
            Panel("To load", "short",
                  value("switchyard_expert_loads_pending", EXPERT, "pod"),
                  "Falls while a share is loaded; the most urgent experts come first."),
            Panel("Moved", "Bps", [
                ("loaded", "sum(rate(switchyard_expert_rebalance_loaded_bytes_total"
                 f"{{{EXPERT}}}[R]))"),
                ("dropped", "sum(rate(switchyard_expert_rebalance_dropped_bytes_total"
                 f"{{{EXPERT}}}[R]))")],
                  "A worker that comes moves about its own share, and no more."),
        ]),
        Row("Who does the work", [
            Panel("Busy", "percentunit", rate("switchyard_expert_busy_seconds_total", EXPERT, "pod"),
                  "Share of time computing."),
            Panel("Imbalance", "short", [("imbalance", "switchyard:expert_imbalance:ratio{NS}")],
                  "Busiest over mean. A step waits for the busiest."),
            Panel("Outputs", "short", rate("switchyard_expert_outputs_total", EXPERT, "pod"),
                  "One for each (row, expert)."),
        ]),
        Row("Who talks to whom", [
            Panel("Rows sent, by worker", "short",
                  rate("switchyard_expert_dispatch_rows_total", ATTENTION, "worker"),
                  "As attention workers choose."),
            Panel("Connected", "short",
                  value("switchyard_expert_worker_connected", ATTENTION, "worker"),
                  "Attention workers that reach it."),
            Panel("Bytes to and from expert workers", "Bps", [
                ("sent", f"sum(rate(switchyard_expert_dispatch_sent_bytes_total{{{ATTENTION}}}[R]))"),
                ("received",
                 f"sum(rate(switchyard_expert_dispatch_received_bytes_total{{{ATTENTION}}}[R]))")],
                  "10 GbE is 1.2 GB/s each way."),
            Panel("Workers by state, as attention workers see them", "short", [
                ("{{state}}", "sum by (state) (max by (state, worker) "
                 f"(switchyard_expert_worker_state{{{ATTENTION}}}))")],
                  "ejected: slow or hanging, gets probes. distrusted: answered wrongly. disputed: joins, and nobody can say whose answers are wrong."),
            Panel("Refused handshakes", "short",
                  rate("switchyard_expert_refused_handshakes_total", EXPERT, "reason"),
                  "fingerprint, weight_format: somebody has other weights."),
        ]),
    ])

MEMORY = Dashboard(
    "memory", "Caches and memory", "What is kept, and what it saves.", [
        Row("States of sequences", [
            Panel("State memory", "bytes", [
                ("budget {{pod}}", f"switchyard_engine_state_budget_bytes{{{ATTENTION}}}"),
                ("taken {{pod}}", f"switchyard_engine_state_memory_bytes{{{ATTENTION}}}"),
                ("of running sequences {{pod}}", f"switchyard_engine_state_bytes{{{ATTENTION}}}")],
                  "Taken beyond running: prefixes' snapshots, which give way."),
            Panel("Waiting and preempted", "short", [
                ("waiting {{pod}}", f"vllm:num_requests_waiting{{{ATTENTION}}}"),
                ("preempted {{pod}}", f"rate(vllm:num_preemptions_total{{{ATTENTION}}}[R])")],
                  "For want of memory."),
            Panel("KV bytes of a token", "bytes", [
                ("{{dtype}} {{pod}}", f"switchyard_engine_kv_cache_token_bytes{{{ATTENTION}}}")],
                  "All attention workers of a model must have the same type."),
        ]),
        Row("Prefix cache", [
            Panel("Prompt tokens from the cache", "percentunit", [
                ("share", f"sum(rate(vllm:prefix_cache_hits_total{{{ATTENTION}}}[R])) / "
                 f"(sum(rate(vllm:prefix_cache_queries_total{{{ATTENTION}}}[R])) > 0)")],
                  "Chats should be above a half."),
            Panel("Snapshots", "short",
                  value("switchyard_engine_prefix_cache_snapshots", ATTENTION, "pod"), "Kept."),
            Panel("Evictions", "short",
                  value("switchyard_engine_prefix_cache_evictions", ATTENTION, "pod"),
                  "Since start. Many, with few hits: memory for more prefixes would pay."),
        ]),
        Row("States on disk", [
            Panel("Kept", "bytes",
                  value("switchyard_engine_disk_state_bytes", ATTENTION, "pod"),
                  "With --snapshot-dir."),
            Panel("Since start", "short", [
                ("saved {{pod}}", f"switchyard_engine_disk_states_saved{{{ATTENTION}}}"),
                ("loaded {{pod}}", f"switchyard_engine_disk_states_loaded{{{ATTENTION}}}"),
                ("dropped {{pod}}", f"switchyard_engine_disk_states_dropped{{{ATTENTION}}}"),
                ("errors {{pod}}", f"switchyard_engine_disk_state_errors{{{ATTENTION}}}")],
                  "errors: a disk that is full or broken; nothing but speed is lost."),
        ]),
        Row("Drafts", [
            Panel("Drafted tokens that were right", "percentunit", [
                ("accepted",
                 f"sum(rate(vllm:spec_decode_num_accepted_tokens_total{{{ATTENTION}}}[R])) / "
                 f"(sum(rate(vllm:spec_decode_num_draft_tokens_total{{{ATTENTION}}}[R])) > 0)")],
                  "Low: drafting turns itself off."),
            Panel("Tokens a step accepts", "short",
                  value("sglang:spec_accept_length", ATTENTION, "pod", "max"),
                  "1: none but the step's own."),
        ]),
        Row("Processes", [
            Panel("Resident memory", "bytes",
                  [("{{pod}}", 'process_resident_memory_bytes{NS,job=~"switchyard-.*"}')],
                  "Against the pod's limit."),
            Panel("Bytes queued at expert workers", "bytes",
                  value("switchyard_expert_queued_bytes", EXPERT, "pod"),
                  "Bounded by --max-queue-mib."),
            Panel("Open files", "short",
                  [("{{pod}}", 'process_open_fds{NS,job=~"switchyard-.*"} / '
                    'process_max_fds{NS,job=~"switchyard-.*"}')],
                  "Share of the limit. Each connection is one."),
        ]),
    ])

AUTOSCALING = Dashboard(
    "autoscaling", "Autoscaling", "What scalers see, and what they will do.", [
        Row("Expert workers", [
            Panel("Demand and supply", "short", [
                ("workers' worth of computing", "switchyard:expert_busy_workers:sum{NS}"),
                ("desired", "switchyard:expert_workers_desired:count{NS}"),
                ("there", "switchyard:expert_workers:count{NS}")],
                  "desired = demand / 0.6, more if calls queue: components/hpa and keda."),
            Panel("Busy", "percentunit", [
                ("pool", "switchyard:expert_pool_busy:ratio{NS}"), ("target", "vector(0.6)")],
                  "Never CPU usage: a worker that spins uses all of it."),
            Panel("Queueing over computing", "short", [
                ("time queued / time computing", "switchyard:expert_queue_pressure:ratio{NS}"),
                ("limit", "vector(1.5)")],
                  "Counts while the pool is busy at all."),
        ]),
        Row("Attention workers", [
            Panel("Sequences, of what there is room for", "percentunit",
                  value("vllm:kv_cache_usage_perc", ATTENTION, "pod"),
                  "Scaled by memory of states."),
            Panel("Requests", "short", [
                ("running", f"sum(vllm:num_requests_running{{{ATTENTION}}})"),
                ("waiting", f"sum(vllm:num_requests_waiting{{{ATTENTION}}})")],
                  "Waiting > 0 for minutes: one more."),
            Panel("Time to first token, p95", "s",
                  quantiles("vllm:time_to_first_token_seconds", ATTENTION, points=(0.95,)),
                  "The guard."),
        ]),
    ])

DASHBOARDS = (OVERVIEW, SLOW_TOKEN, EXPERTS, MEMORY, AUTOSCALING)
