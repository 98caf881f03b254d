// An attention worker in the same process, behind the router's interface.
//
// Requests and answers pass through the same two codecs as on the wire, so that
// what a remote worker would refuse or change is refused or changed here too.
// There is no socket.

#ifndef SWITCHYARD_SWITCHYARD_SERVE_LOCAL_ATTENTION_CLIENT_H_
#define SWITCHYARD_SWITCHYARD_SERVE_LOCAL_ATTENTION_CLIENT_H_

#include <memory>

#include "attention_worker/core/generation_backend.h"
#include "router/client/attention_client.h"
#include "tracing/span/span.h"

namespace switchyard {

// `backend` is not owned, and outlives the client and its requests; nor is
// `spans`, which gets the spans of requests that are traced (null: nobody
// does). Thread-safe. Listeners are called on the engine's step thread, or
// before Generate returns when the request is refused.
std::shared_ptr<router::AttentionClient> NewLocalAttentionClient(
    attention_worker::GenerationBackend* backend, tracing::SpanSink* spans);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SERVE_LOCAL_ATTENTION_CLIENT_H_
