#include "base/flag_aliases.h"

namespace switchyard {
namespace {

// tests/e2e/flags_test.py reads this table, and says for each name which
// programs understand it.
constexpr FlagAlias kAliases[] = {
    // SGLang
    {"model_path", "model"},
    {"speculative_algo", "speculative_algorithm"},
    // vLLM
    {"max_model_len", "context_length"},
    {"max_num_seqs", "max_running_requests"},
    {"max_num_batched_tokens", "chunked_prefill_size"},
    {"max_num_queued_reqs", "max_queued_requests"},
    {"max_num_queued_tokens", "max_queued_tokens"},
    {"enable_prefix_caching", "disable_radix_cache", /*negated=*/true},
    {"spec_tokens", "speculative_num_steps"},
    {"shutdown_timeout", "drain_timeout"},
    {"sse_keep_alive_interval", "sse_ping_interval"},
    // llama.cpp
    {"alias", "served_model_name"},
    {"ctx_size", "context_length"},
    {"parallel", "max_running_requests"},
    {"cache_prompt", "disable_radix_cache", /*negated=*/true},
    {"spec_draft_n_max", "speculative_num_steps"},
    {"ssl_cert_file", "ssl_certfile"},
    {"ssl_key_file", "ssl_keyfile"},
    {"timeout", "request_timeout"},
};

constexpr char kParallel[] =
    "there are no ranks here: experts are spread over switchyard-expert-worker "
    "processes, as many as join, and attention workers are replicas "
    "(switchyard "
    "plan says how many); one process uses all cores (--threads)";
constexpr char kMemory[] =
    "memory is told in bytes: --state-memory for all sequences' states, "
    "--memory-gib for the experts of a switchyard-expert-worker; left out, "
    "they "
    "are taken from what is there";
constexpr char kAlwaysOn[] = "it is always on; leave it out";
constexpr char kNoGpu[] = "there is no GPU here; leave it out";
constexpr char kWeights[] =
    "weights have the types of the checkpoint's files; switchyard convert "
    "--format makes smaller ones";
constexpr char kStates[] =
    "states of recurrent layers and keys and values share --state-memory; "
    "leave it out";
constexpr char kParsers[] =
    "what the model writes is read as its chat format says, which is told from "
    "the checkpoint; --chat-format names another";
constexpr char kConfig[] =
    "edit config.json in the checkpoint's directory instead";
constexpr char kSampling[] =
    "defaults of sampling are those of generation_config.json in the "
    "checkpoint's directory";
constexpr char kPolicy[] =
    "decoding goes first, prompts by each request's \"priority\" and fairly "
    "among clients; leave it out";
constexpr char kDrafts[] =
    "drafts come from the checkpoint's MTP head: --speculative-algorithm "
    "NEXTN, "
    "--speculative-num-steps";
constexpr char kSeed[] = "a request carries its \"seed\"; leave it out";
constexpr char kLog[] = "--log-level is for everything";

struct Foreign {
  const char* name;
  const char* instead;
};

constexpr Foreign kForeign[] = {
    {"tp", kParallel},
    {"tp_size", kParallel},
    {"tensor_parallel_size", kParallel},
    {"pp_size", kParallel},
    {"pipeline_parallel_size", kParallel},
    {"dp", kParallel},
    {"dp_size", kParallel},
    {"data_parallel_size", kParallel},
    {"ep", kParallel},
    {"ep_size", kParallel},
    {"enable_expert_parallel", kParallel},
    {"nnodes", kParallel},
    {"node_rank", kParallel},
    {"dist_init_addr", kParallel},
    {"rpc", kParallel},
    {"mem_fraction_static", kMemory},
    {"max_total_tokens", kMemory},
    {"gpu_memory_utilization", kMemory},
    {"kv_cache_memory_bytes", kMemory},
    {"swap_space", kMemory},
    {"cpu_offload_gb", kMemory},
    {"cache_ram", kMemory},
    {"n_gpu_layers", kNoGpu},
    {"device", kNoGpu},
    {"attention_backend", kNoGpu},
    {"enforce_eager", kNoGpu},
    {"disable_cuda_graph", kNoGpu},
    {"cuda_graph_max_bs", kNoGpu},
    {"page_size", "pages have 64 tokens; leave it out"},
    {"block_size", "pages have 64 tokens; leave it out"},
    {"radix_eviction_policy",
     "what saves least for its bytes goes first; leave it out"},
    {"max_prefill_tokens", "--chunked-prefill-size bounds a step's prompts"},
    {"max_mamba_cache_size", kStates},
    {"mamba_full_memory_ratio", kStates},
    {"mamba_ssm_dtype", kStates},
    {"mamba_ssm_cache_dtype", kStates},
    {"mamba_track_interval", kStates},
    {"mamba_scheduler_strategy", kStates},
    {"mamba_cache_mode", kStates},
    {"mamba_block_size", kStates},
    {"dtype", kWeights},
    {"quantization", kWeights},
    {"load_format", kWeights},
    {"trust_remote_code", "no code of a checkpoint is ever run; leave it out"},
    {"tokenizer", "the tokenizer is the checkpoint's; leave it out"},
    {"tokenizer_path", "the tokenizer is the checkpoint's; leave it out"},
    {"speculative_config", kDrafts},
    {"spec_method", kDrafts},
    {"spec_type", kDrafts},
    {"speculative_draft_model_path", kDrafts},
    {"reasoning_parser", kParsers},
    {"tool_call_parser", kParsers},
    {"enable_auto_tool_choice", kAlwaysOn},
    {"reasoning_format", kParsers},
    {"jinja", kParsers},
    {"chat_template", kParsers},
    {"chat_template_file", kParsers},
    {"grammar_backend", "grammars are built in; leave it out"},
    {"structured_outputs_config", "grammars are built in; leave it out"},
    {"sampling_defaults", kSampling},
    {"preferred_sampling_params", kSampling},
    {"generation_config", kSampling},
    {"override_generation_config", kSampling},
    {"schedule_policy", kPolicy},
    {"scheduling_policy", kPolicy},
    {"schedule_conservativeness", kPolicy},
    {"enable_priority_scheduling", kAlwaysOn},
    {"enable_chunked_prefill", kAlwaysOn},
    {"enable_metrics", kAlwaysOn},
    {"metrics", kAlwaysOn},
    {"enable_cache_report", kAlwaysOn},
    {"enable_prompt_tokens_details", kAlwaysOn},
    {"enable_ssl_refresh", kAlwaysOn},
    {"enable_trace", "--otlp-traces-endpoint turns traces on"},
    {"json_model_override_args", kConfig},
    {"hf_overrides", kConfig},
    {"override_kv", kConfig},
    {"seed", kSeed},
    {"random_seed", kSeed},
    {"log_level_http", kLog},
    {"uvicorn_log_level", kLog},
    {"log_verbosity", kLog},
    {"watchdog_timeout",
     "a process that hangs is found by who calls it (probes, leases)"},
    {"worker_urls", "--attention-workers, or let them join by --routers"},
    {"numa", "one process on each node: --cpus"},
    {"cpu_mask", "--cpus 0-7,16"},
};

}  // namespace

absl::Span<const FlagAlias> FlagAliases() { return kAliases; }

absl::string_view InsteadOfFlag(absl::string_view name) {
  for (const Foreign& foreign : kForeign) {
    if (name == foreign.name) return foreign.instead;
  }
  return "";
}

}  // namespace switchyard
