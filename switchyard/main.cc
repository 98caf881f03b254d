// switchyard: Switchyard in one process, and tools for people who check.
//
//   switchyard serve --model DIR [--host H] [--port P]
//       A router, an attention worker and all experts in one process, without
//       sockets between them. The OpenAI-compatible API is at http://H:P/v1.
//   switchyard chat [--host H] [--port P] [--system TEXT] [--think]
//       Talks to a running server (this one or a router) from the terminal.
//   switchyard bench --model DIR [--json FILE] [--expert-workers N]
//       How fast it runs here, as shares of what the machine can do, and where
//       the time goes.
//   switchyard bench serving --model DIR [--json FILE] [--only
//   conversation,...]
//       What users feel: conversations, shared prefixes, drafts, many streams,
//       long prompts beside others, memory over a thousand sessions.
//   switchyard logits --model DIR --ids 5,17,3 [--prefill N] --out FILE.npy
//       fp32 logits [T, V]; with --prefill N the rest goes in one token at a
//       time.
//   switchyard convert --model DIR --out DIR --format
//   q8|q4|q4-q8|bf16dot|bf16|source
//       A model in Hugging Face's layout (BF16, F16, F32, FP8) to ours, which
//       is smaller, faster, and checked when it is loaded (docs/formats.md).
//       --experts, --dense, --lm-head choose for one kind of tensor. The same
//       command goes on where a killed one was.
//   switchyard session save --from H:P --tokens FILE --to FILE.state
//   switchyard session load --from FILE.state --to H:P
//   switchyard session move --from H:P --tokens FILE --to H:P
//       The state of a session out of an attention worker's memory, into one,
//       or from one to another: the next turn there reads what is new only.
//       --tokens has the session's token ids, as a JSON array, or an answer of
//       the server to a request with "return_token_ids": true; --cache-salt
//       and --extra-key are what the requests had, if anything. Workers that
//       want TLS get it with --tls-cert-file, --tls-key-file, --tls-ca-file.
//   switchyard verify DIR
//       Checks every checksum of a model's files.
//   switchyard synth --layers N --format hf-bf16|q8|q4|q4-q8|bf16dot --out DIR
//       A model of random weights, of Qwen3-Next-80B-A3B's geometry or that of
//       --model-config FILE, changed by --set hidden_size=512,...; for
//       measurements.
//   switchyard plan --model DIR|80b --nodes N --ram-per-node 64GiB
//       [--network 10GbE] [--users U] [--context C]
//       How many attention and expert workers, what memory each needs, how fast
//       they would be and what bounds that, beside one big server; and the
//       values for deploy/k8s.
//   switchyard tokenize --model DIR [--decode] [--skip-special]
//       JSON lines {"text"} in, {"ids"} out; --decode the other way.
//   switchyard render --format instruct|thinking|coder
//       JSON lines {"messages", "tools", "kwargs"} in, {"rendered"} or
//       {"error"} out.
//   switchyard parse --format json|xml|think|nothink
//       JSON lines {"text", "tools"} in, the parsed message out.
//
// Every flag can also come from the environment: --chat-format from
// SWITCHYARD_CHAT_FORMAT. Exit code 0: done. 1: bad flags or input, with the
// reason on stderr.

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/command_line.h"
#include "base/log_flags.h"
#include "base/out_of_memory.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "router/flags.h"
#include "rpc/tls_flags.h"
#include "switchyard/bench/bench_command.h"
#include "switchyard/bench/serving/serving_command.h"
#include "switchyard/chat/chat_command.h"
#include "switchyard/command_flags.h"
#include "switchyard/convert/convert_command.h"
#include "switchyard/logits/logits_command.h"
#include "switchyard/plan/plan_command.h"
#include "switchyard/serve/serve_command.h"
#include "switchyard/session/session_command.h"
#include "switchyard/synth/synth_command.h"
#include "switchyard/text/text_commands.h"
#include "switchyard/verify/verify_command.h"

ABSL_FLAG(std::string, model, "", "checkpoint directory; plan: or 80b");
ABSL_FLAG(std::string, host, "127.0.0.1",
          "address to listen at, or to talk to");
ABSL_FLAG(int, port, 8080, "HTTP port; serve: 0 picks a free one");
ABSL_FLAG(int, threads, 0,
          "compute threads; 0: as many as this process may use");
ABSL_FLAG(
    std::string, cpus, "",
    "serve, bench: one compute thread on each of these CPUs alone, \"0-7,16\"; "
    "default: the kernel decides");
ABSL_FLAG(
    std::string, weights, "auto",
    "serve, bench: copy (weights in this process's memory, in large pages, "
    "fastest), map (in the mapped files, which processes share) or auto "
    "(copy those of a converted checkpoint)");
ABSL_FLAG(std::string, kv_cache_dtype, "auto",
          "serve, bench, logits: keys and values of past tokens: float32 (the "
          "reference's tokens), bfloat16 (half the memory), int8 (less than a "
          "third); auto: bfloat16 for a converted checkpoint, else float32");
ABSL_FLAG(std::string, activations, "auto",
          "serve, bench, logits: bfloat16: BF16 matrices of a Hugging Face "
          "directory are multiplied by activations in bf16, faster with "
          "AVX-512 BF16, other tokens; auto: by such in f32");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set of the kernels: auto, scalar, avx2, avx512, "
          "avx512vnni, avx512bf16, amx (never by auto)");

ABSL_FLAG(int64_t, max_running_requests, 64, "serve: sequences in one step");
ABSL_FLAG(int64_t, chunked_prefill_size, 1024,
          "serve, bench: prompt tokens in one step");
ABSL_FLAG(bool, disable_radix_cache, false,
          "serve: keep no states of ended sequences for prompts that begin "
          "alike");
ABSL_FLAG(std::string, snapshot_dir, "",
          "serve: a directory, of this process alone, that keeps prefixes' "
          "states beyond its memory and its life; empty: none");
ABSL_FLAG(int64_t, snapshot_dir_bytes, int64_t{64} << 30,
          "serve: bytes that --snapshot-dir may take");
ABSL_FLAG(
    std::string, speculative_algorithm, "auto",
    "serve: drafts of tokens, verified together; they change no token: NEXTN "
    "(by the model's MTP head), NONE, or auto: NEXTN if it has one");
ABSL_FLAG(int, speculative_num_steps, 3,
          "serve: tokens that are drafted at a time, at most; 0: none");
ABSL_FLAG(int, speculative_eagle_topk, 1, "serve: guesses for each place; 1");
ABSL_FLAG(int, speculative_num_draft_tokens, 0,
          "serve: speculative_num_steps + 1, or 0");
ABSL_FLAG(
    bool, speculative_adaptive, true,
    "serve: draft fewer tokens, or none, when it does not pay; false: always "
    "speculative_num_steps");
ABSL_FLAG(int64_t, state_memory, 0,
          "serve: bytes for all sequences' states; 0: from what is available");
ABSL_FLAG(int64_t, experts_memory, 0,
          "serve: bytes of experts that are in memory; the others are "
          "read from disk when a token wants them; 0: all of them are");
ABSL_FLAG(bool, verify_checksums, false,
          "serve: check the files against the directory's SHA256SUMS first");

ABSL_FLAG(std::string, system, "", "chat: a system prompt");
ABSL_FLAG(bool, think, false, "chat: ask for reasoning, where the model can");

ABSL_FLAG(std::string, json, "", "bench, plan: a file for everything found");
ABSL_FLAG(std::string, only, "",
          "bench: what to measure: decode, prefill, limits; default: "
          "decode,prefill. bench serving: conversation, prefix, drafts, "
          "concurrency, stall, mixed; default: all that the model can");
ABSL_FLAG(std::string, batch, "1,4,8,16,32",
          "bench: sequences that decode together");
ABSL_FLAG(std::string, context, "",
          "bench: tokens before the decoded ones (default 0,4096,16384); plan: "
          "tokens of a sequence (default 8192)");
ABSL_FLAG(std::string, prompt, "128,512,2048", "bench: tokens of prompts");
ABSL_FLAG(int64_t, repeat, 5, "bench: repetitions of each measurement");
ABSL_FLAG(int64_t, steps, 32, "bench: tokens of a decoding repetition");
ABSL_FLAG(double, max_seconds, 60,
          "bench: no repetition begins later in a measurement");
ABSL_FLAG(double, limit_seconds, 0.5,
          "bench: for each of the machine's limits, before and after; at most "
          "0.12 of it between repetitions (0: not there)");
ABSL_FLAG(int64_t, expert_workers, 0,
          "bench: processes that hold the experts; 0: in process");
ABSL_FLAG(std::string, transport, "tcp",
          "bench: between the processes: tcp (loopback) or unix");
ABSL_FLAG(std::string, draft_batch, "1,4,16",
          "bench serving: sequences that draft together");
ABSL_FLAG(std::string, concurrency, "1,2,4,8,16,32,64",
          "bench serving: streams at a time");
ABSL_FLAG(std::string, stall_chunks, "64,256,1024",
          "bench serving: chunked_prefill_size of the long prompt that streams "
          "suffer from");
ABSL_FLAG(int64_t, long_prompt, 16384, "bench serving: its tokens");
ABSL_FLAG(int64_t, sessions, 1000,
          "bench serving: mixed sessions under little state memory");
ABSL_FLAG(int64_t, worker_threads, 1, "bench: threads of an expert worker");

ABSL_FLAG(std::string, ids, "", "logits: token ids, separated by commas");
ABSL_FLAG(int64_t, prefill, 0,
          "logits: how many tokens go in together; 0: all of them");
ABSL_FLAG(std::string, out, "",
          "logits: the .npy file to write; convert, synth: the directory");

ABSL_FLAG(int64_t, nodes, 0, "plan: machines, one worker on each");
ABSL_FLAG(std::string, ram_per_node, "", "plan: their memory, as in 64GiB");
ABSL_FLAG(int64_t, cores_per_node, 16, "plan: their cores");
ABSL_FLAG(double, memory_gbps, 100,
          "plan: 10^9 bytes a second that one reads (switchyard bench --only "
          "limits)");
ABSL_FLAG(std::string, network, "10GbE",
          "plan: between them: 1GbE, 10GbE, 25GbE or 100GbE; loopback: all on "
          "one machine");
ABSL_FLAG(double, core_gops, 470,
          "plan: 10^9 8-bit operations a second of one core (switchyard bench "
          "--only limits)");
ABSL_FLAG(int64_t, attention_workers, 0,
          "plan: so many of the nodes; 0: as many as are best");
ABSL_FLAG(int64_t, users, 1, "plan: sequences that decode at a time");
ABSL_FLAG(int64_t, replicas, 2, "plan: copies of each expert");
ABSL_FLAG(int64_t, server_cores, 64,
          "plan: of one big server, to compare with");
ABSL_FLAG(double, server_memory_gbps, 400, "plan: what that one reads");

ABSL_FLAG(bool, decode, false, "tokenize: {\"ids\"} in, {\"text\"} out");
ABSL_FLAG(bool, skip_special, false,
          "tokenize --decode: leave special tokens out");
ABSL_FLAG(
    std::string, format, "",
    "convert, plan: q8, q4, q4-q8 (experts q4, the rest q8), bf16dot (bf16, "
    "multiplied by activations in bf16), bf16, source; "
    "render: instruct, thinking, coder; parse: json, xml, think, nothink");
ABSL_FLAG(std::string, experts, "",
          "convert: q8, q4, bf16dot, bf16 or source for routed experts");
ABSL_FLAG(std::string, dense, "",
          "convert: the same for projections and shared experts");
ABSL_FLAG(std::string, lm_head, "", "convert: the same for lm_head");

ABSL_FLAG(int, layers, 0, "synth: layers; 0: as many as the config says");
ABSL_FLAG(std::string, model_config, "",
          "synth: a config.json; default: Qwen3-Next-80B-A3B's");
ABSL_FLAG(std::string, set, "",
          "synth: key=value,... over the config, as JSON spells values");
ABSL_FLAG(bool, mtp, false, "synth: with an MTP head");
ABSL_FLAG(std::string, tokenizer, "",
          "synth: a model's directory whose tokenizer is copied; default: a "
          "tokenizer of bytes");
ABSL_FLAG(uint64_t, seed, 1, "synth: other seeds, other weights");

ABSL_FLAG(std::string, from, "",
          "session: the attention worker (host:port), or the file to load");
ABSL_FLAG(std::string, to, "",
          "session: the attention worker (host:port), or the file to save to");
ABSL_FLAG(std::string, tokens, "",
          "session: file with the session's token ids, or an answer with them");
ABSL_FLAG(std::string, cache_salt, "",
          "session: the cache_salt that the session's requests had");
ABSL_FLAG(std::string, extra_key, "",
          "session: the extra_key that the session's requests had");

namespace switchyard {
namespace {

absl::Status Serve() {
  ServeOptions options;
  SY_ASSIGN_OR_RETURN(options.router, router::OptionsFromFlags());
  options.router.model_dir = absl::GetFlag(FLAGS_model);
  options.router.host = absl::GetFlag(FLAGS_host);
  options.router.port = absl::GetFlag(FLAGS_port);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.cpus = absl::GetFlag(FLAGS_cpus);
  options.weights = absl::GetFlag(FLAGS_weights);
  options.activations = absl::GetFlag(FLAGS_activations);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.kv_cache_dtype = absl::GetFlag(FLAGS_kv_cache_dtype);
  options.max_running_requests = absl::GetFlag(FLAGS_max_running_requests);
  options.chunked_prefill_size = absl::GetFlag(FLAGS_chunked_prefill_size);
  options.prefix_caching = !absl::GetFlag(FLAGS_disable_radix_cache);
  options.snapshot_dir = absl::GetFlag(FLAGS_snapshot_dir);
  options.snapshot_dir_bytes = absl::GetFlag(FLAGS_snapshot_dir_bytes);
  options.speculative.algorithm = absl::GetFlag(FLAGS_speculative_algorithm);
  options.speculative.num_steps = absl::GetFlag(FLAGS_speculative_num_steps);
  options.speculative.eagle_topk = absl::GetFlag(FLAGS_speculative_eagle_topk);
  options.speculative.num_draft_tokens =
      absl::GetFlag(FLAGS_speculative_num_draft_tokens);
  options.speculative.adaptive = absl::GetFlag(FLAGS_speculative_adaptive);
  options.state_memory_bytes = absl::GetFlag(FLAGS_state_memory);
  options.experts_memory_bytes = absl::GetFlag(FLAGS_experts_memory);
  options.drain_timeout = router::DrainTimeoutFromFlags();
  options.verify_checksums = absl::GetFlag(FLAGS_verify_checksums);
  return RunServe(options);
}

absl::Status Chat() {
  ChatOptions options;
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.system_prompt = absl::GetFlag(FLAGS_system);
  options.enable_thinking = absl::GetFlag(FLAGS_think);
  options.interactive = isatty(STDIN_FILENO) != 0;
  return RunChat(options, std::cin, std::cout);
}

absl::Status Bench() {
  BenchOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.cpus = absl::GetFlag(FLAGS_cpus);
  options.weights = absl::GetFlag(FLAGS_weights);
  options.activations = absl::GetFlag(FLAGS_activations);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.kv_cache_dtype = absl::GetFlag(FLAGS_kv_cache_dtype);
  options.json_path = absl::GetFlag(FLAGS_json);
  SY_ASSIGN_OR_RETURN(options.batches,
                      ParseNumbers("batch", absl::GetFlag(FLAGS_batch), 1));
  const std::string contexts = absl::GetFlag(FLAGS_context);
  SY_ASSIGN_OR_RETURN(
      options.contexts,
      ParseNumbers("context", contexts.empty() ? "0,4096,16384" : contexts, 0));
  SY_ASSIGN_OR_RETURN(options.prompts,
                      ParseNumbers("prompt", absl::GetFlag(FLAGS_prompt), 1));
  if (!absl::GetFlag(FLAGS_only).empty()) {
    options.only =
        absl::StrSplit(absl::GetFlag(FLAGS_only), ',', absl::SkipWhitespace());
  }
  options.repeat = absl::GetFlag(FLAGS_repeat);
  options.steps = absl::GetFlag(FLAGS_steps);
  options.prefill_chunk = absl::GetFlag(FLAGS_chunked_prefill_size);
  options.max_seconds = absl::GetFlag(FLAGS_max_seconds);
  options.limit_seconds = absl::GetFlag(FLAGS_limit_seconds);
  options.expert_workers = absl::GetFlag(FLAGS_expert_workers);
  options.transport = absl::GetFlag(FLAGS_transport);
  options.worker_threads = absl::GetFlag(FLAGS_worker_threads);
  return RunBench(options, std::cout);
}

absl::Status BenchServing() {
  BenchServingOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.cpus = absl::GetFlag(FLAGS_cpus);
  options.weights = absl::GetFlag(FLAGS_weights);
  options.activations = absl::GetFlag(FLAGS_activations);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.json_path = absl::GetFlag(FLAGS_json);
  options.only =
      absl::StrSplit(absl::GetFlag(FLAGS_only), ',', absl::SkipWhitespace());
  options.conversation.repeat = absl::GetFlag(FLAGS_repeat);
  options.drafts.repeat = absl::GetFlag(FLAGS_repeat);
  const int64_t chunk = absl::GetFlag(FLAGS_chunked_prefill_size);
  options.conversation.prefill_chunk = chunk;
  options.prefix.prefill_chunk = chunk;
  options.concurrency.prefill_chunk = chunk;
  SY_ASSIGN_OR_RETURN(
      options.drafts.batches,
      ParseNumbers("draft_batch", absl::GetFlag(FLAGS_draft_batch), 1));
  SY_ASSIGN_OR_RETURN(
      options.concurrency.streams,
      ParseNumbers("concurrency", absl::GetFlag(FLAGS_concurrency), 1));
  SY_ASSIGN_OR_RETURN(
      options.stall.chunks,
      ParseNumbers("stall_chunks", absl::GetFlag(FLAGS_stall_chunks), 1));
  options.stall.long_tokens = absl::GetFlag(FLAGS_long_prompt);
  options.mixed.sessions = absl::GetFlag(FLAGS_sessions);
  return RunBenchServing(options, std::cout);
}

absl::StatusOr<std::vector<int32_t>> IdsFromFlag() {
  std::vector<int32_t> ids;
  for (const absl::string_view part :
       absl::StrSplit(absl::GetFlag(FLAGS_ids), ',', absl::SkipWhitespace())) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(part, &id)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--ids: '", part, "' is no token id; give numbers as in 5,17,3"));
    }
    ids.push_back(id);
  }
  return ids;
}

absl::Status Logits() {
  LogitsOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  SY_ASSIGN_OR_RETURN(options.ids, IdsFromFlag());
  options.prefill = absl::GetFlag(FLAGS_prefill);
  options.out_path = absl::GetFlag(FLAGS_out);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.activations = absl::GetFlag(FLAGS_activations);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.kv_cache_dtype = absl::GetFlag(FLAGS_kv_cache_dtype);
  return RunLogits(options);
}

absl::Status Convert() {
  ConvertCommandOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.out_dir = absl::GetFlag(FLAGS_out);
  options.formats = {.format = absl::GetFlag(FLAGS_format),
                     .experts = absl::GetFlag(FLAGS_experts),
                     .dense = absl::GetFlag(FLAGS_dense),
                     .lm_head = absl::GetFlag(FLAGS_lm_head)};
  options.threads = absl::GetFlag(FLAGS_threads);
  return RunConvert(options, std::cerr, isatty(STDERR_FILENO) != 0);
}

absl::Status Verify() {
  VerifyCommandOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.threads = absl::GetFlag(FLAGS_threads);
  return RunVerify(options, std::cerr, isatty(STDERR_FILENO) != 0);
}

absl::Status Session(absl::Status (*run)(const SessionCommandOptions&,
                                         std::ostream&)) {
  SY_RETURN_IF_ERROR(rpc::UseTlsOfFlags());
  return run({.from = absl::GetFlag(FLAGS_from),
              .to = absl::GetFlag(FLAGS_to),
              .tokens = absl::GetFlag(FLAGS_tokens),
              .cache_salt = absl::GetFlag(FLAGS_cache_salt),
              .extra_key = absl::GetFlag(FLAGS_extra_key)},
             std::cout);
}
absl::Status SessionSave() { return Session(RunSessionSave); }
absl::Status SessionLoad() { return Session(RunSessionLoad); }
absl::Status SessionMove() { return Session(RunSessionMove); }

absl::Status Synth() {
  SynthOptions options;
  options.config_path = absl::GetFlag(FLAGS_model_config);
  options.overrides = absl::GetFlag(FLAGS_set);
  options.num_layers = absl::GetFlag(FLAGS_layers);
  options.mtp = absl::GetFlag(FLAGS_mtp);
  options.format = absl::GetFlag(FLAGS_format);
  options.out_dir = absl::GetFlag(FLAGS_out);
  options.tokenizer_dir = absl::GetFlag(FLAGS_tokenizer);
  options.seed = absl::GetFlag(FLAGS_seed);
  options.threads = absl::GetFlag(FLAGS_threads);
  return RunSynth(options, std::cerr, isatty(STDERR_FILENO) != 0);
}

absl::Status Plan() {
  PlanOptions options;
  options.model = absl::GetFlag(FLAGS_model);
  if (const std::string format = absl::GetFlag(FLAGS_format); !format.empty()) {
    options.format = format;
  }
  options.kv_cache_dtype = absl::GetFlag(FLAGS_kv_cache_dtype);
  options.ram_per_node = absl::GetFlag(FLAGS_ram_per_node);
  options.nodes = absl::GetFlag(FLAGS_nodes);
  options.network = absl::GetFlag(FLAGS_network);
  if (const std::string context = absl::GetFlag(FLAGS_context);
      !context.empty() && !absl::SimpleAtoi(context, &options.context)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--context=", context, " is no number of tokens"));
  }
  options.users = absl::GetFlag(FLAGS_users);
  options.replicas = absl::GetFlag(FLAGS_replicas);
  options.cores_per_node = absl::GetFlag(FLAGS_cores_per_node);
  options.memory_gbps = absl::GetFlag(FLAGS_memory_gbps);
  options.core_gops = absl::GetFlag(FLAGS_core_gops);
  options.attention_workers = absl::GetFlag(FLAGS_attention_workers);
  options.json_path = absl::GetFlag(FLAGS_json);
  options.server_cores = absl::GetFlag(FLAGS_server_cores);
  options.server_memory_gbps = absl::GetFlag(FLAGS_server_memory_gbps);
  return RunPlan(options, std::cout);
}

absl::Status Tokenize() {
  TokenizeOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.decode = absl::GetFlag(FLAGS_decode);
  options.skip_special = absl::GetFlag(FLAGS_skip_special);
  return RunTokenize(options, std::cin, std::cout);
}

absl::Status Render() {
  RenderOptions options;
  options.format = absl::GetFlag(FLAGS_format);
  return RunRender(options, std::cin, std::cout);
}

absl::Status Parse() {
  ParseOptions options;
  options.format = absl::GetFlag(FLAGS_format);
  return RunParse(options, std::cin, std::cout);
}

enum class Needs {
  kNothing,
  kModel,            // --model
  kModelOrArgument,  // --model, or the directory after the command
};

struct Command {
  const char* name;  // one of FlagsOfCommands()
  absl::Status (*run)();
  Needs needs;
};

constexpr Command kCommands[] = {
    {"serve", Serve, Needs::kModel},
    {"bench serving", BenchServing, Needs::kModel},
    {"bench", Bench, Needs::kModel},
    {"chat", Chat, Needs::kNothing},
    {"logits", Logits, Needs::kModel},
    {"convert", Convert, Needs::kModel},
    {"session save", SessionSave, Needs::kNothing},
    {"session load", SessionLoad, Needs::kNothing},
    {"session move", SessionMove, Needs::kNothing},
    {"verify", Verify, Needs::kModelOrArgument},
    {"synth", Synth, Needs::kNothing},
    {"plan", Plan, Needs::kModel},
    {"tokenize", Tokenize, Needs::kModel},
    {"render", Render, Needs::kNothing},
    {"parse", Parse, Needs::kNothing},
};

constexpr char kUsage[] =
    "switchyard COMMAND [flags]\n\n"
    "  serve     the whole of Switchyard in one process\n"
    "  bench     how fast a model runs here, and where the time goes\n"
    "  bench serving   what users feel: latencies, drafts, memory\n"
    "  chat      talk to a running server\n"
    "  logits    fp32 logits of token ids, as .npy\n"
    "  convert   a Hugging Face model to Switchyard's formats\n"
    "  session save|load|move   a session's state between attention workers\n"
    "  verify    check a model's files against their checksums\n"
    "  synth     a model of random weights, for measurements\n"
    "  plan      how many machines, what memory, how fast\n"
    "  tokenize  text to token ids, and back\n"
    "  render    messages and tools to a prompt\n"
    "  parse     a model's output to a message\n";

absl::Status UnknownCommand(const std::string& name) {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.emplace_back(command.name);
  const std::string nearest = NearestName(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown command '", name, "'",
      nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?"),
      "\n", kUsage));
}

absl::Status Main(int argc, char** argv) {
  SY_ASSIGN_OR_RETURN(const std::vector<std::string> arguments,
                      ParseCommandLine(argc, argv, kUsage, FlagsOfCommands()));
  SY_RETURN_IF_ERROR(SetLogOfFlags());
  if (arguments.empty()) return absl::InvalidArgumentError(kUsage);
  for (const Command& command : kCommands) {
    // "bench serving" is two arguments.
    const std::vector<std::string> words = absl::StrSplit(command.name, ' ');
    size_t used = words.size();
    if (arguments.size() < used ||
        !std::equal(words.begin(), words.end(), arguments.begin())) {
      continue;
    }
    if (command.needs == Needs::kModelOrArgument && arguments.size() > 1) {
      absl::SetFlag(&FLAGS_model, arguments[used++]);
    }
    if (arguments.size() > used) {
      return absl::InvalidArgumentError(
          absl::StrCat("one command at a time, not '", arguments[0], " ",
                       arguments[used], "'"));
    }
    if (command.needs != Needs::kNothing &&
        absl::GetFlag(FLAGS_model).empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          command.name,
          command.needs == Needs::kModel ? " needs --model, " : " needs ",
          "a checkpoint's directory"));
    }
    return command.run();
  }
  return UnknownCommand(arguments[0]);
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::ExitWhenOutOfMemory();
  // A reader that hung up and a file beyond its limit are errors of write(),
  // not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  std::ios::sync_with_stdio(false);
  // Else a read flushes the output, and what was wrong with that is forgotten.
  std::cin.tie(nullptr);
  const absl::Status status = switchyard::Main(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "switchyard: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
