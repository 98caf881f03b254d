"""The router's gRPC port: health for those who ask over gRPC, and reflection."""

import subprocess

import e2e_case
from local_cluster import LOOPBACK, Cluster, Process, free_port, get, wait_until

# grpc.health.v1.HealthCheckResponse, serialized.
SERVING = "0801"
NOT_SERVING = "0802"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
# ServerReflectionRequest: list_services = "*".
LIST_SERVICES = "3a012a"


def router(*flags):
    return [e2e_case.binary("switchyard-router"), "--model", e2e_case.DEMO,
            "--host", LOOPBACK, "--attention-workers", f"{LOOPBACK}:{free_port()}", *flags]


class RouterGrpc(e2e_case.TestCase):
    def setUp(self):
        # One attention worker, which computes the experts itself; started later.
        self.cluster = Cluster(e2e_case.BINARIES, e2e_case.DEMO, deal=())
        self.addCleanup(self.cluster.close)
        self.address = f"{LOOPBACK}:{self.cluster.router_grpc_port}"

    def call(self, method, request=""):
        """A call that goes on; its `lines` are the replies so far."""
        call = Process("grpc_call", [e2e_case.binary("grpc_call"), self.address, method,
                                     request])
        self.addCleanup(call.close)
        return call

    def check(self, request=""):
        """One call of Check, whole: its lines."""
        done = subprocess.run(
            [e2e_case.binary("grpc_call"), self.address, "/grpc.health.v1.Health/Check",
             request], stdout=subprocess.PIPE, text=True, timeout=60 * e2e_case.SLOWER,
            check=True)
        return done.stdout.splitlines()

    def test_health_follows_the_workers(self):
        cluster = self.cluster
        cluster.start_router()
        watch = self.call("/grpc.health.v1.Health/Watch")

        def wait_for(lines):
            wait_until(lambda: list(watch.lines)[:len(lines)] == lines, f"health {lines}",
                       60 * e2e_case.SLOWER, [watch, *cluster.processes()])

        expected = [NOT_SERVING]
        wait_for(expected)
        self.assertEqual(self.check(), [NOT_SERVING, "status OK "])

        cluster.start_attention()
        expected.append(SERVING)
        wait_for(expected)
        cluster.wait_ready()
        self.assertEqual(self.check(), [SERVING, "status OK "])

        cluster.attention.kill()
        cluster.attention = None
        expected.append(NOT_SERVING)
        wait_for(expected)

        cluster.start_attention()
        expected.append(SERVING)
        wait_for(expected)

        # Who watches hears of the end before the end.
        cluster.router.close()
        self.assertEqual(cluster.router.exit_code(), 0, cluster.router.log())
        self.assertEqual(watch.exit_code(), 0)
        self.assertEqual(list(watch.lines)[:-1], [*expected, NOT_SERVING])
        self.assertRegex(watch.lines[-1], "^status ")

    def test_services_that_are_not_there(self):
        self.cluster.start_router()
        # HealthCheckRequest: service = "x".
        lines = self.check("0a0178")
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], "^status NOT_FOUND ")

    def test_reflection_lists_health(self):
        self.cluster.start_router()
        reflection = self.call(REFLECTION, LIST_SERVICES)
        wait_until(lambda: len(reflection.lines) > 0, "list of services",
                   60 * e2e_case.SLOWER, [reflection, self.cluster.router])
        self.assertIn(b"grpc.health.v1.Health", bytes.fromhex(reflection.lines[0]))

    def test_port_in_use_is_named(self):
        self.cluster.start_router()
        wait_until(lambda: get(self.cluster.port, "/livez")[0] == 200, "router",
                   60 * e2e_case.SLOWER, [self.cluster.router])
        # /livez may be there before the gRPC port is.
        self.check()
        done = subprocess.run(
            router("--port", "0", "--grpc-port", str(self.cluster.router_grpc_port)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=60 * e2e_case.SLOWER)
        self.assertEqual(done.returncode, 1)
        self.assertIn(self.address, done.stderr)
        self.assertIn("in use", done.stderr)


if __name__ == "__main__":
    e2e_case.main()
