// The page at the router's root: who is there and who holds what, what goes on,
// and a chat to try the model.
//
// It is index.html of this folder, as it is; it asks the router's own paths
// (/readyz, /metrics, /topology, /v1/...) and nothing else.

#ifndef SWITCHYARD_ROUTER_PAGE_OPERATORS_PAGE_H_
#define SWITCHYARD_ROUTER_PAGE_OPERATORS_PAGE_H_

#include "router/http/http_message.h"

namespace switchyard::router {

// The whole page, HTML in UTF-8. It lets browsers load nothing from elsewhere.
HttpResponse OperatorsPage();

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_PAGE_OPERATORS_PAGE_H_
