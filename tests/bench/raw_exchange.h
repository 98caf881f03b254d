// What a dispatch would cost without gRPC: plain sockets, a frame there, a
// frame back. The yardstick of dispatch_bench.cc.

#ifndef SWITCHYARD_TESTS_BENCH_RAW_EXCHANGE_H_
#define SWITCHYARD_TESTS_BENCH_RAW_EXCHANGE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::bench {

// Blocking file descriptors. They end the process when something fails: a
// benchmark without its peer has nothing to say.

// `address` is 127.0.0.1:port or unix:/path, as it is for the workers; the raw
// socket is beside it (another port, another path).
int RawListen(const std::string& address);

// Serves one connection after another: a frame is its size and the size of the
// answer (u32 each), and that many bytes. Never returns.
void RawServe(int listener);

class RawPeers {
 public:
  explicit RawPeers(const std::vector<std::string>& addresses);
  ~RawPeers();
  RawPeers(const RawPeers&) = delete;
  RawPeers& operator=(const RawPeers&) = delete;

  // A frame to each peer, then an answer from each.
  void Exchange(uint32_t bytes_out, uint32_t bytes_back);

 private:
  std::vector<int> sockets_;
  std::vector<char> buffer_;
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_RAW_EXCHANGE_H_
