"""For each alert: series under which it fires, and what is nearly that and must stay quiet.

Values are promtool's: "0+1x60" starts at 0 and adds 1 a scrape, 60 times; a scrape is every
ten seconds.
"""

import dataclasses

ROUTER = 'namespace="a",job="switchyard-router",pod="router-0"'
ATTENTION = 'namespace="a",job="switchyard-attention-worker",pod="attention-0"'
EXPERT = 'namespace="a",job="switchyard-expert-worker",pod="expert-0"'


@dataclasses.dataclass
class Case:
    alert: str
    at: str  # when it must fire, "2m"
    fires: dict  # series: values
    quiet: dict  # the same, without a fault
    labels: dict = dataclasses.field(default_factory=lambda: {"namespace": "a"})
    value: str = ""  # {{ $value }}, where a text has it


def pod(labels):
    """Labels of an alert that keeps a series' own."""
    return dict(pair.replace('"', "").split("=") for pair in labels.split(","))


def histogram(name, labels, buckets):
    """A histogram that gets observations every scrape: {le: of them at or below it}."""
    return {f'{name}_bucket{{{labels},le="{le}"}}': f"0+{count}x200"
            for le, count in buckets.items()}


def workers(state, count):
    return {f'switchyard_router_workers{{{ROUTER},state="{state}"}}': f"{count}x200"}


def counter(name, labels, step):
    return {f"{name}{{{labels}}}": f"0+{step}x200"}


def busy(first, second):
    """Two expert workers with these shares of time busy."""
    other = EXPERT.replace("expert-0", "expert-1")
    return {f"up{{{EXPERT}}}": "1x200", f"up{{{other}}}": "1x200",
            f"switchyard_expert_busy_seconds_total{{{EXPERT}}}": f"0+{first * 10}x200",
            f"switchyard_expert_busy_seconds_total{{{other}}}": f"0+{second * 10}x200"}


def ended(reason, step):
    return counter("vllm:request_success_total",
                   f'{ROUTER},finished_reason="{reason}"', step)


def http(status, step):
    return counter("http_requests_total",
                   f'{ROUTER},handler="/v1/completions",status="{status}"', step)


def refused(reason, step):
    return counter("switchyard_expert_refused_handshakes_total",
                   f'{EXPERT},reason="{reason}"', step)


def loading(values):
    return {f"switchyard_loading_progress{{{EXPERT}}}": values,
            f"process_start_time_seconds{{{EXPERT}}}": "0x200"}


def rebalance(bytes_a_scrape):
    return {f"switchyard_expert_loads_pending{{{EXPERT}}}": "3x200",
            **counter("switchyard_expert_rebalance_loaded_bytes_total", EXPERT,
                      bytes_a_scrape)}


def versions(*found):
    return {f'switchyard_build_info{{{EXPERT},version="{v}"}}': "1x500" for v in found}


def kv_types(*found):
    return {f'switchyard_engine_kv_cache_token_bytes{{{ATTENTION},dtype="{t}"}}': "1x200"
            for t in found}


def waiting(*counts):
    """Requests that wait on each of some attention workers."""
    return {"vllm:num_requests_waiting{%s}" % ATTENTION.replace(
        "attention-0", f"attention-{i}"): f"{count}x200" for i, count in enumerate(counts)}


def worker_state(state, value):
    return {f'switchyard_expert_worker_state{{{ATTENTION},worker="w:1",state="{state}"}}':
            f"{value}x200"}


WORKER = {"namespace": "a", "worker": "w:1"}


def hedges(count):
    return {**counter("switchyard_moe_hedges_total", ATTENTION + ',result="won"', count),
            **counter("switchyard_expert_dispatch_calls_total",
                      ATTENTION + ',worker="w:1"', 100)}


CASES = [
    Case("SwitchyardNoAttentionWorkerReady", "2m",
         workers("ready", 0), workers("ready", 1)),
    Case("SwitchyardTargetDown", "2m", {f"up{{{ROUTER}}}": "0x200"},
         {f"up{{{ROUTER}}}": "1x200"}, pod(ROUTER)),
    Case("SwitchyardExpertsMissing", "1m",
         workers("waiting_experts", 1), workers("waiting_experts", 0)),
    Case("SwitchyardExpertsUnderReplicated", "5m",
         {f"switchyard_experts_under_replicated{{{EXPERT}}}": "7x200"},
         {f"switchyard_experts_under_replicated{{{EXPERT}}}": "0x200"}, value="7"),
    Case("SwitchyardRebalanceStuck", "10m", rebalance(0), rebalance(1000),
         {"namespace": "a", "pod": "expert-0"}),
    Case("SwitchyardExpertLoadsFail", "2m",
         counter("switchyard_expert_failed_loads_total", EXPERT, 1),
         counter("switchyard_expert_failed_loads_total", EXPERT, 0),
         {"namespace": "a", "pod": "expert-0"}),
    Case("SwitchyardLoadingStuck", "15m", loading("0.5x200"), loading("0+0.005x200"),
         pod(EXPERT)),
    Case("SwitchyardRequestsFail", "5m",
         {**ended("error", 1), **ended("stop", 50)},
         {**ended("error", 1), **ended("stop", 500)}),
    Case("SwitchyardRequestsRefused", "5m",
         {**http(429, 10), **http(200, 90)}, {**http(429, 1), **http(200, 99)}),
    Case("SwitchyardReplays", "5m",
         counter("switchyard_router_replays_total", ROUTER, 1),
         counter("switchyard_router_replays_total", ROUTER, 0)),
    Case("SwitchyardWrongWeights", "2m", refused("fingerprint", 1),
         {**refused("fingerprint", 0), **refused("not_ready", 1)},
         {"namespace": "a", "pod": "expert-0", "reason": "fingerprint"}),
    Case("SwitchyardSequencesFailed", "2m",
         counter("switchyard_moe_failed_sequences_total", ATTENTION, 1),
         counter("switchyard_moe_failed_sequences_total", ATTENTION, 0)),
    Case("SwitchyardMixedVersions", "70m", versions("1", "2"), versions("1")),
    Case("SwitchyardMixedKvCacheTypes", "2m",
         kv_types("float32", "int8"), kv_types("int8")),
    Case("SwitchyardSlowFirstToken", "15m",
         histogram("vllm:time_to_first_token_seconds", ROUTER,
                   {"10": 90, "20": 100, "+Inf": 100}),
         histogram("vllm:time_to_first_token_seconds", ROUTER,
                   {"10": 99, "20": 100, "+Inf": 100})),
    Case("SwitchyardSlowTokens", "15m",
         histogram("vllm:inter_token_latency_seconds", ROUTER,
                   {"1": 95, "2.5": 100, "+Inf": 100}),
         histogram("vllm:inter_token_latency_seconds", ROUTER,
                   {"1": 100, "2.5": 100, "+Inf": 100})),
    Case("SwitchyardExpertPoolBusy", "15m", busy(0.9, 0.95), busy(0.5, 0.95)),
    Case("SwitchyardExpertImbalance", "10m", busy(0.9, 0.1), busy(0.09, 0.01)),
    Case("SwitchyardRowsResent", "10m",
         {**counter("switchyard_moe_resent_pairs_total", ATTENTION, 10),
          **counter("switchyard_moe_dispatched_pairs_total", ATTENTION, 100)},
         {**counter("switchyard_moe_resent_pairs_total", ATTENTION, 1),
          **counter("switchyard_moe_dispatched_pairs_total", ATTENTION, 100)}),
    Case("SwitchyardStateMemoryFull", "10m", waiting(3, 1), waiting(3, 0)),
    Case("SwitchyardWrongResults", "2m",
         counter("switchyard_moe_result_mismatch_total", ATTENTION, 1),
         counter("switchyard_moe_result_mismatch_total", ATTENTION, 0)),
    Case("SwitchyardWorkerDistrusted", "1m", worker_state("distrusted", 1),
         worker_state("distrusted", 0), WORKER),
    Case("SwitchyardWorkerEjected", "10m", worker_state("ejected", 1),
         worker_state("ejected", 0), WORKER),
    Case("SwitchyardHedges", "15m", hedges(4), hedges(2)),
    Case("SwitchyardDiskStateErrors", "5m",
         counter("switchyard_engine_disk_state_errors", ATTENTION, 1),
         counter("switchyard_engine_disk_state_errors", ATTENTION, 0),
         {"namespace": "a", "pod": "attention-0"}),
    Case("SwitchyardExpertQueueFull", "5m",
         counter("switchyard_expert_requests_total",
                 EXPERT + ',code="RESOURCE_EXHAUSTED"', 1),
         counter("switchyard_expert_requests_total", EXPERT + ',code="OK"', 1),
         {"namespace": "a", "pod": "expert-0"}),
]
