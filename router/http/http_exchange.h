// What a handler sees of a connection: the answer to one request.

#ifndef SWITCHYARD_ROUTER_HTTP_HTTP_EXCHANGE_H_
#define SWITCHYARD_ROUTER_HTTP_HTTP_EXCHANGE_H_

#include <cstdint>
#include <memory>

#include "router/http/http_message.h"

namespace switchyard::router {

class HttpConnection;

// The writer of request `id` of `connection`, which it keeps alive. `chunked`:
// what is written to a stream needs chunks around it.
std::shared_ptr<ResponseWriter> NewHttpExchange(
    std::shared_ptr<HttpConnection> connection, uint64_t id, bool chunked);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_HTTP_EXCHANGE_H_
