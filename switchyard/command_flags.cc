#include "switchyard/command_flags.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "router/flags.h"

namespace switchyard {
namespace {

constexpr char kServe[] = "serve";
constexpr char kSessionFlags[] =
    "from to tokens cache_salt extra_key tls_cert_file tls_key_file "
    "tls_ca_file tls_peer_name";

struct Command {
  const char* name;
  const char* usage;  // behind "switchyard " and the name
  const char* flags;  // that main.cc reads for it, separated by spaces
};

constexpr Command kCommands[] = {
    {kServe,
     "--model DIR [flags]\nThe whole of Switchyard in one process: OpenAI's, "
     "Anthropic's and SGLang's APIs over HTTP.",
     // and those of a router's front
     "model host port threads cpus weights activations kv_cache_dtype isa "
     "max_running_requests chunked_prefill_size disable_radix_cache "
     "snapshot_dir snapshot_dir_bytes speculative_algorithm "
     "speculative_num_steps speculative_eagle_topk "
     "speculative_num_draft_tokens speculative_adaptive state_memory "
     "experts_memory verify_checksums"},
    {"bench serving",
     "--model DIR [flags]\nWhat users feel: latencies, drafts, memory.",
     "model threads cpus weights activations isa json only repeat "
     "chunked_prefill_size "
     "draft_batch concurrency stall_chunks long_prompt sessions"},
    {"bench",
     "--model DIR [flags]\nHow fast a model runs here, and where the time "
     "goes.",
     "model threads cpus weights activations isa kv_cache_dtype json only "
     "batch context "
     "prompt repeat steps chunked_prefill_size max_seconds limit_seconds "
     "expert_workers transport worker_threads"},
    {"chat", "[flags]\nTalks to a running server from the terminal.",
     "host port system think"},
    {"logits",
     "--model DIR --ids 5,17,3 --out FILE.npy [flags]\nfp32 logits of token "
     "ids.",
     "model ids prefill out threads activations isa kv_cache_dtype"},
    {"convert",
     "--model DIR --out DIR --format FORMAT [flags]\nA Hugging Face model to "
     "Switchyard's formats.",
     "model out format experts dense lm_head threads"},
    {"session save",
     "--from HOST:PORT --tokens FILE --to FILE [flags]\nA session's state out "
     "of an attention worker.",
     kSessionFlags},
    {"session load",
     "--from FILE --to HOST:PORT [flags]\nA session's state into an attention "
     "worker.",
     kSessionFlags},
    {"session move",
     "--from HOST:PORT --tokens FILE --to HOST:PORT [flags]\nA session's state "
     "from one attention worker to another.",
     kSessionFlags},
    {"verify", "DIR [flags]\nChecks a model's files against their checksums.",
     "model threads"},
    {"synth",
     "--layers N --format FORMAT --out DIR [flags]\nA model of random weights, "
     "for measurements.",
     "model_config set layers mtp format out tokenizer seed threads"},
    {"plan",
     "--model DIR|80b --nodes N --ram-per-node 64GiB [flags]\nHow many "
     "machines, what memory, how fast.",
     "model format kv_cache_dtype ram_per_node nodes network context users "
     "replicas cores_per_node memory_gbps core_gops attention_workers "
     "server_cores server_memory_gbps json"},
    {"tokenize",
     "--model DIR [flags]\nText to token ids, and back, in lines of JSON.",
     "model decode skip_special"},
    {"render",
     "--format instruct|thinking|coder\nMessages and tools to a prompt, in "
     "lines of JSON.",
     "format"},
    {"parse",
     "--format json|xml|think|nothink\nA model's output to a message, in lines "
     "of JSON.",
     "format"},
};

}  // namespace

std::vector<CommandFlags> FlagsOfCommands() {
  std::vector<CommandFlags> all;
  for (const Command& command : kCommands) {
    CommandFlags flags;
    flags.name = command.name;
    flags.usage = absl::StrCat("switchyard ", command.name, " ", command.usage);
    flags.flags = absl::StrSplit(command.flags, ' ');
    flags.flags.insert(flags.flags.end(), {"log_level", "log_format"});
    if (absl::string_view(command.name) == kServe) {
      for (std::string& name : router::FlagNames()) {
        flags.flags.push_back(std::move(name));
      }
    }
    all.push_back(std::move(flags));
  }
  return all;
}

}  // namespace switchyard
