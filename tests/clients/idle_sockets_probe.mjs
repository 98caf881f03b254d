// Exit code 1: this Node keeps a listener for data on a socket whose response has ended.
//
// Node's repair of CVE-2026-48931, in Debian 12's 18.20.4+dfsg-1~deb12u3 for example, does.
// node-fetch 2 takes it for a chunked response that was cut off, whoever has sent it, and
// reports "Premature close" (https://github.com/nodejs/node/issues/63989).

import http from "node:http";

const server = http.createServer((request, reply) => {
  reply.write("in two ");
  reply.end("chunks");
});
server.listen(0, "127.0.0.1", () => {
  const agent = new http.Agent({ keepAlive: true });
  const request = http.get({ port: server.address().port, agent }, (response) => {
    const { socket } = response;
    response.once("close", () => {
      process.exitCode = socket.listenerCount("data") > 0 ? 1 : 0;
      agent.destroy();
      server.close();
    });
    response.resume();
  });
  request.setTimeout(10000, () => request.destroy(new Error("no answer")));
});
