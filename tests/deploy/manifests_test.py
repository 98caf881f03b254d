"""Every overlay builds, is valid Kubernetes, and keeps what check_manifests.py asks."""

import copy
import os
import unittest

import jsonschema
import kubernetes_validate
import yaml

import manifests
import api_server_rules
from check_manifests import check

BINARIES = os.environ["SWITCHYARD_BINARIES"]
KUBERNETES = "1.37"
# Every component with each way to have weights, and each scaler.
CHOICES = ("weights-", "hpa", "keda")
COMPONENT_SETS = [
    [weights, scaler, *(c for c in manifests.components() if not c.startswith(CHOICES))]
    for weights in manifests.components() if weights.startswith("weights-")
    for scaler in ("hpa", "keda")]


def builds():
    for name in manifests.overlays():
        yield f"overlay {name}", manifests.overlay(name)
    for names in COMPONENT_SETS:
        yield f"base with {', '.join(names)}", manifests.base_with(*names)


def find(documents, kind, name):
    for document in documents:
        if (document["kind"], document["metadata"]["name"]) == (kind, name):
            return document
    raise AssertionError(f"no {kind} {name}")


class ManifestsTest(unittest.TestCase):

    def test_everything_is_valid_for_the_api(self):
        for what, documents in builds():
            for document in documents:
                with self.subTest(build=what, kind=document["kind"],
                                  name=document["metadata"]["name"]):
                    schema = manifests.custom_schema(document)
                    if schema:
                        jsonschema.validate(document, schema)
                    else:
                        kubernetes_validate.validate(document, KUBERNETES, strict=True)

    def test_a_misspelt_field_is_not_valid(self):
        worker = copy.deepcopy(find(manifests.overlay("local"), "Deployment",
                                    "switchyard-expert-worker"))
        worker["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(worker, KUBERNETES, strict=True)

    def test_builds_keep_the_policy(self):
        for what, documents in builds():
            with self.subTest(build=what):
                self.assertEqual(check(documents), [])

    def test_every_flag_is_a_flag_of_its_binary(self):
        for what, documents in builds():
            configs = {d["metadata"]["name"]: d for d in documents
                       if d["kind"] == "ConfigMap"}
            for document in documents:
                if document["kind"] not in ("Deployment", "StatefulSet"):
                    continue
                container = document["spec"]["template"]["spec"]["containers"][0]
                binary = os.path.basename(container["command"][0])
                known = manifests.help_flags(os.path.join(BINARIES, binary))
                used = {a.partition("=")[0].removeprefix("--")
                        for a in container["args"]}
                variables = [e["name"] for e in container.get("env", [])]
                for source in container["envFrom"]:
                    variables += configs[source["configMapRef"]["name"]]["data"]
                used |= {v.removeprefix("SWITCHYARD_").lower().replace("_", "-")
                         for v in variables}
                with self.subTest(build=what, binary=binary):
                    self.assertEqual(used - known, set())


def _bytes(text):
    units = {"Gi": 1 << 30, "Mi": 1 << 20}
    return int(text[:-2]) * units[text[-2:]]


class NodesTest(unittest.TestCase):

    def test_components_choose_nodes(self):
        pod = _pod(manifests.base_with("weights-pvc", "exclusive-cpus", "numa", "huge-pages"),
                   "switchyard-expert-worker")
        self.assertEqual(pod["nodeSelector"],
                         {"switchyard.dev/numa": "single-numa-node",
                          "switchyard.dev/huge-pages": "transparent"})

    def test_a_kubelet_would_start_with_these_settings(self):
        path = os.path.join(manifests.K8S, "components", "numa", "kubelet.yaml")
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file)
        # The Memory Manager refuses anything else.
        reserved = sum(_bytes(node["limits"]["memory"])
                       for node in settings["reservedMemory"])
        self.assertEqual(reserved, sum(map(_bytes, (
            settings["kubeReserved"]["memory"], settings["systemReserved"]["memory"],
            settings["evictionHard"]["memory.available"]))))
        # The static CPU Manager wants CPUs for everything else.
        self.assertEqual(settings["cpuManagerPolicy"], "static")
        self.assertTrue(settings["reservedSystemCPUs"])
        self.assertEqual(settings["memoryManagerPolicy"], "Static")
        self.assertEqual(settings["topologyManagerPolicy"], "single-numa-node")


# Each breaks one promise of a good build, and says what must be found.
def _pod(documents, name="switchyard-router", kind="Deployment"):
    return find(documents, kind, name)["spec"]["template"]["spec"]


def _container(documents, name="switchyard-router"):
    return _pod(documents, name)["containers"][0]


def _set(path_of, **fields):
    def change(documents):
        path_of(documents).update(fields)
    return change


def _delete(path_of, field):
    def change(documents):
        del path_of(documents)[field]
    return change


def _drop_kind(kind, name):
    def change(documents):
        documents.remove(find(documents, kind, name))
    return change


def _no_clients(documents):
    policy = find(documents, "NetworkPolicy", "router")
    del policy["spec"]["ingress"][0]["from"]


def _wrong_service_port(documents):
    service = find(documents, "Service", "switchyard-router")
    service["spec"]["ports"][0]["targetPort"] = "https"


def _host_path(documents):
    _pod(documents)["volumes"] = [{"name": "weights", "hostPath": {"path": "/model"}}]
    _container(documents)["volumeMounts"] = [
        {"name": "weights", "mountPath": "/model", "readOnly": True}]


def _writable_weights(documents):
    _pod(documents)["volumes"] = [
        {"name": "weights", "persistentVolumeClaim": {"claimName": "c"}}]
    _container(documents)["volumeMounts"] = [
        {"name": "weights", "mountPath": "/model"}]


def _image_volume_by_tag(documents):
    _pod(documents)["volumes"] = [
        {"name": "weights", "image": {"reference": "registry/weights:1"}}]
    _container(documents)["volumeMounts"] = [
        {"name": "weights", "mountPath": "/model", "readOnly": True}]


def _fractional_exclusive(documents):
    template = find(documents, "Deployment",
                    "switchyard-expert-worker")["spec"]["template"]
    template["metadata"]["labels"]["switchyard.dev/cpus"] = "exclusive"


def _numa_with_shared_cpus(documents):
    _pod(documents, "switchyard-expert-worker")["nodeSelector"] = {
        "switchyard.dev/numa": "single-numa-node"}


def _security(documents):
    return _container(documents)["securityContext"]


def _scaler_and_replicas(documents):
    documents += [copy.deepcopy(d) for d in manifests.overlay("cluster-10gbe")
                  if d["kind"] == "HorizontalPodAutoscaler"]


def _wrong_monitor_port(documents):
    find(documents, "PodMonitor",
         "switchyard-router")["spec"]["podMetricsEndpoints"][0]["port"] = "metrics"


BREAKS = [
    (_set(_pod, automountServiceAccountToken=True), "token"),
    (_set(_pod, enableServiceLinks=True), "read as flags"),
    (_set(_pod, serviceAccountName="default"), "service account default"),
    (_set(_pod, hostNetwork=True), "hostNetwork"),
    (_set(lambda d: _pod(d)["securityContext"], runAsUser=1000), "runAsUser"),
    (_set(lambda d: _pod(d)["securityContext"], runAsNonRoot=False), "runAsNonRoot"),
    (_delete(lambda d: _pod(d)["securityContext"], "seccompProfile"), "seccomp"),
    (_delete(_pod, "topologySpreadConstraints"), "not spread"),
    (_set(_pod, terminationGracePeriodSeconds=30), "killed after 30 s"),
    (_set(_security, readOnlyRootFilesystem=False), "root file system"),
    (_delete(_security, "allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    (_set(_security, privileged=True), "privileged"),
    (_set(_security, capabilities={"drop": ["NET_RAW"]}), "not all dropped"),
    (_set(_security, capabilities={"drop": ["ALL"], "add": ["SYS_PTRACE"]}), "added"),
    (_set(_security, runAsUser=0), "overrides"),
    (_set(_container, image="switchyard:latest"), "neither a version nor"),
    (_set(_container, resources={"requests": {"cpu": "1", "memory": "1Gi"}}), "limit"),
    (_set(_container, envFrom=[{"configMapRef": {"name": "absent"}}]), "absent"),
    (_set(_container, args=["--port=1", "--drain-timeout=60s"]), "--port=1"),
    (_delete(_container, "startupProbe"), "no startupProbe"),
    (_set(_container, livenessProbe={"grpc": {"port": 30001}}), "liveness asks more"),
    (_drop_kind("PodDisruptionBudget", "switchyard-router"), "PodDisruptionBudget"),
    (_drop_kind("NetworkPolicy", "default-deny"), "denies everything else"),
    (_drop_kind("NetworkPolicy", "expert-worker"), "nobody may reach port 7001"),
    (_no_clients, "lets everybody in"),
    (_wrong_service_port, "no port https"),
    (_host_path, "enforces restricted"),
    (_writable_weights, "mounted writable"),
    (_image_volume_by_tag, "without a digest"),
    (_fractional_exclusive, "whole CPUs"),
    (_numa_with_shared_cpus, "only exclusive CPUs are aligned"),
    (_wrong_monitor_port, "no port metrics"),
    (_scaler_and_replicas, "sets replicas itself"),
]


def _autoscaler(documents):
    return find(documents, "HorizontalPodAutoscaler", "switchyard-expert-worker")["spec"]


def _service(documents):
    return find(documents, "Service", "switchyard-router")["spec"]


def _twice(documents):
    documents.append(copy.deepcopy(find(documents, "Service", "switchyard-router")))


def _deployment(documents):
    return find(documents, "Deployment", "switchyard-router")["spec"]


def _grpc_probe(documents):
    return _container(documents)["startupProbe"]


def _except_outside(documents):
    policy = find(documents, "NetworkPolicy", "router")
    policy["spec"]["ingress"][0]["from"] = [
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]


# What a schema allows and a server does not.
REFUSED = [
    (_twice, "is there twice"),
    (_set(lambda d: find(d, "Service", "switchyard-router")["metadata"], name="1router"),
     "no valid name"),
    (_set(lambda d: find(d, "Service", "switchyard-router")["metadata"],
          labels={"app": "a b"}), "no valid label"),
    (_set(_deployment, strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
     "nothing would roll"),
    (_set(_deployment, strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
     "not allowed with Recreate"),
    (_set(_pod, volumes=[{"name": "two", "emptyDir": {}, "hostPath": {"path": "/"}}]),
     "not one source"),
    (_set(_pod, tolerations=[{"operator": "Exists", "key": "a", "value": "b"}]),
     "tolerates no value"),
    (_set(_container, name="Router"), "no valid name"),
    (_set(_container, volumeMounts=[{"name": "absent", "mountPath": "/a"}]), "no volume absent"),
    (_set(_container, ports=[{"name": "more-than-fifteen", "containerPort": 1}]),
     "more-than-fifteen"),
    (_set(_container, resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1G"}}),
     "more memory than its limit"),
    (_set(_container, resources={"limits": {"memory": "1 GiB"}}), "no quantity"),
    (_set(_container, resources={"limits": {"hugepages-2Mi": "1Gi"}}),
     "huge pages without"),
    (_set(_container, lifecycle={"preStop": {"sleep": {"seconds": 100000}}}), "sleeps"),
    (_set(_grpc_probe, successThreshold=2), "successThreshold is not 1"),
    (_set(_grpc_probe, httpGet={"path": "/", "port": 1}, grpc={"port": 1}),
     "not one handler"),
    (_set(_service, ports=[{"port": 1}, {"port": 2}]), "need names"),
    (_set(lambda d: find(d, "PodDisruptionBudget", "switchyard-router")["spec"],
          minAvailable=1, maxUnavailable=1), "wants one of"),
    (_set(_autoscaler, maxReplicas=0), "minReplicas"),
    (_set(_autoscaler, metrics=[{"type": "Pods", "pods": {"target": {
        "type": "Value", "value": "1"}}}]), "takes AverageValue"),
    (_set(_autoscaler, behavior={"scaleUp": {"policies": [
        {"type": "Pods", "value": 1, "periodSeconds": 3600}]}}), "periodSeconds"),
    (_except_outside, "not inside of"),
    (_set(lambda d: find(d, "NetworkPolicy", "router")["spec"]["podSelector"],
          matchExpressions=[{"key": "a", "operator": "Exists", "values": ["b"]}]),
     "are not allowed"),
]


class PolicyTest(unittest.TestCase):

    def test_what_a_server_refuses_is_found(self):
        for change, expected in REFUSED:
            documents = copy.deepcopy(manifests.overlay("cluster-10gbe"))
            change(documents)
            with self.subTest(expected=expected):
                self.assertIn(expected, "\n".join(api_server_rules.check(documents)))

    def test_every_broken_promise_is_found(self):
        for change, expected in BREAKS:
            documents = copy.deepcopy(manifests.overlay("local") + [
                d for d in manifests.overlay("cluster-10gbe")
                if d["kind"] == "PodMonitor"])
            change(documents)
            with self.subTest(expected=expected):
                self.assertIn(expected, "\n".join(check(documents)))


if __name__ == "__main__":
    unittest.main()
