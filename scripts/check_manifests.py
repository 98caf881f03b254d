#!/usr/bin/env python3
"""Checks built Kubernetes manifests against what every pod of Switchyard promises.

    kubectl kustomize deploy/k8s/overlays/local | scripts/check_manifests.py

Schemas say what a field may be; this says what ours must be: hardening (a superset of Pod
Security's restricted standard), probes that do not kill a pod for what others lack, time to
drain, and that names, ports, labels and volumes fit together. And what an API server
refuses beyond its schemas (api_server_rules.py). Prints one line for each finding; exit
code 1 if there is one. Needs PyYAML.
"""

import re
import sys

import api_server_rules

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
LEAST_UID = 10000  # below are the users of the nodes themselves
TIME_TO_END = 5  # seconds between the end of draining and SIGKILL, at least


def seconds(text):
    """"2m", "60s", "1m30s" or "500ms" in seconds."""
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", text)
    return sum(float(number) * units[unit] for number, unit in parts)


def flags_of(container):
    """The container's arguments as {"drain-timeout": "60s"}."""
    found = {}
    for argument in container.get("args", []):
        name, _, value = argument.partition("=")
        found[name.lstrip("-")] = value
    return found


def selects(selector, labels):
    """Whether a label selector matches; an empty one matches everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        if expression["operator"] != "In":
            raise ValueError(f"operator {expression['operator']} is not known here")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


class Checker:
    """Collects findings over one build."""

    def __init__(self, documents):
        self.documents = documents
        self.findings = []
        self.workloads = self.of_kind(*WORKLOADS)

    def of_kind(self, *kinds):
        return [d for d in self.documents if d["kind"] in kinds]

    def named(self, kind, name):
        for document in self.of_kind(kind):
            if document["metadata"]["name"] == name:
                return document
        return None

    def require(self, condition, where, what):
        if not condition:
            self.findings.append(f"{where}: {what}")

    def run(self):
        self.require(self.workloads, "build", "no workload")
        for workload in self.workloads:
            self.check_workload(workload)
        for account in self.of_kind("ServiceAccount"):
            self.require(account.get("automountServiceAccountToken") is False,
                         f"ServiceAccount/{account['metadata']['name']}",
                         "automountServiceAccountToken is not false")
        self.check_services()
        self.check_network_policies()
        self.check_scaling()
        self.check_monitors()
        return self.findings

    def check_workload(self, workload):
        name = workload["metadata"]["name"]
        where = f"{workload['kind']}/{name}"
        template = workload["spec"]["template"]
        labels = template["metadata"].get("labels", {})
        pod = template["spec"]
        require = lambda condition, what: self.require(condition, where, what)

        require(selects(workload["spec"]["selector"], labels),
                "its selector does not match its pods")
        require(pod.get("automountServiceAccountToken") is False,
                "pods get a service account's token")
        require(pod.get("enableServiceLinks") is False,
                "variables of services would be read as flags (SWITCHYARD_...)")
        account = pod.get("serviceAccountName", "default")
        require(self.named("ServiceAccount", account),
                f"service account {account} is not in the build")
        for field in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            require(not pod.get(field), f"{field} is set")
        context = pod.get("securityContext", {})
        require(context.get("runAsNonRoot") is True, "runAsNonRoot is not true")
        for field in ("runAsUser", "runAsGroup"):
            require(context.get(field, 0) >= LEAST_UID,
                    f"{field} is below {LEAST_UID}")
        require(context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
                "seccompProfile is not RuntimeDefault")
        require(pod.get("topologySpreadConstraints"), "pods are not spread")
        require(any(selects(budget["spec"]["selector"], labels)
                    for budget in self.of_kind("PodDisruptionBudget")),
                "no PodDisruptionBudget selects its pods")
        if "switchyard.dev/numa" in pod.get("nodeSelector", {}):
            require(labels.get("switchyard.dev/cpus") == "exclusive",
                    "one NUMA node is asked for, but only exclusive CPUs are aligned")
        for container in pod.get("initContainers", []) + pod["containers"]:
            self.check_container(where, workload, container)
        for container in pod["containers"]:
            self.check_probes_and_drain(where, pod, container)
        self.check_volumes(where, workload)

    def check_container(self, where, workload, container):
        where = f"{where}/{container['name']}"
        require = lambda condition, what: self.require(condition, where, what)
        context = container.get("securityContext", {})
        require(context.get("readOnlyRootFilesystem") is True,
                "the root file system is writable")
        require(context.get("allowPrivilegeEscalation") is False,
                "allowPrivilegeEscalation is not false")
        require(not context.get("privileged"), "privileged")
        capabilities = context.get("capabilities", {})
        require(capabilities.get("drop") == ["ALL"], "capabilities are not all dropped")
        require(not capabilities.get("add"), "capabilities are added")
        for field in ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile"):
            require(field not in context, f"{field} overrides the pod's")

        image = container["image"]
        tag = image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else ""
        require("@sha256:" in image or tag not in ("", "latest"),
                f"image {image} has neither a version nor a digest")
        resources = container.get("resources", {})
        requests = resources.get("requests", {})
        limits = resources.get("limits", {})
        require("cpu" in requests and "memory" in requests,
                "no requests of CPU and memory")
        require("memory" in limits, "no limit of memory")
        labels = workload["spec"]["template"]["metadata"].get("labels", {})
        if labels.get("switchyard.dev/cpus") == "exclusive":
            require(requests == limits, "exclusive CPUs need limits equal to requests")
            require(str(requests.get("cpu", "")).isdigit(),
                    "exclusive CPUs are whole CPUs")
        for source in container.get("envFrom", []):
            name = source.get("configMapRef", {}).get("name")
            require(self.named("ConfigMap", name), f"ConfigMap {name} is missing")
        ports = {port["containerPort"] for port in container.get("ports", [])}
        for flag, value in flags_of(container).items():
            if flag == "port" or flag.endswith("-port"):
                require(int(value) in ports, f"--{flag}={value} is no declared port")

    def check_probes_and_drain(self, where, pod, container):
        where = f"{where}/{container['name']}"
        require = lambda condition, what: self.require(condition, where, what)
        ports = {}
        for port in container.get("ports", []):
            ports[port["name"]] = port["containerPort"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            require(probe, f"no {kind}")
            if not probe:
                continue
            target = probe.get("grpc") or probe.get("httpGet") or {}
            require("port" in target, f"{kind} is neither gRPC nor HTTP")
            require(target.get("port") in ports or target.get("port") in ports.values(),
                    f"{kind} asks port {target.get('port')}, which is not declared")
        live = container.get("livenessProbe", {})
        require(live.get("httpGet", {}).get("path") == "/livez",
                "liveness asks more than whether the process answers")
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
        drain = flags_of(container).get("drain-timeout")
        require(drain, "no --drain-timeout")
        needed = sleep.get("seconds", 0) + seconds(drain or "0s") + TIME_TO_END
        grace = pod.get("terminationGracePeriodSeconds", 30)
        require(grace >= needed,
                f"killed after {grace} s, but draining may take {needed:.0f}")

    def check_volumes(self, where, workload):
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            volumes[claim["metadata"]["name"]] = {"claim": claim}
        mounted = set()
        for container in pod.get("initContainers", []) + pod["containers"]:
            for mount in container.get("volumeMounts", []):
                name = mount["name"]
                mounted.add(name)
                self.require(name in volumes, where, f"no volume {name}")
                outside = {"hostPath", "image"} & set(volumes.get(name, {}))
                if outside or name == "weights":
                    self.require(mount.get("readOnly") is True, where,
                                 f"{name} is mounted writable")
        for name, volume in volumes.items():
            self.require(name in mounted, where, f"volume {name} is mounted nowhere")
            if "image" in volume:
                self.require("@sha256:" in volume["image"]["reference"], where,
                             f"volume {name} is an image without a digest")
            if "hostPath" in volume:
                for namespace in self.of_kind("Namespace"):
                    level = namespace["metadata"]["labels"].get(
                        "pod-security.kubernetes.io/enforce")
                    self.require(level == "privileged", where,
                                 f"hostPath in a namespace that enforces {level}")

    def pods(self):
        """(labels, named ports) of each workload."""
        for workload in self.workloads:
            template = workload["spec"]["template"]
            ports = {}
            for container in template["spec"]["containers"]:
                for port in container.get("ports", []):
                    ports[port["name"]] = port["containerPort"]
            yield template["metadata"].get("labels", {}), ports

    def check_services(self):
        for service in self.of_kind("Service"):
            where = f"Service/{service['metadata']['name']}"
            chosen = [ports for labels, ports in self.pods()
                      if selects({"matchLabels": service["spec"]["selector"]}, labels)]
            self.require(chosen, where, "selects no pods")
            for ports in chosen:
                for port in service["spec"]["ports"]:
                    target = port.get("targetPort", port["port"])
                    self.require(target in ports or target in ports.values(), where,
                                 f"its pods have no port {target}")

    def check_network_policies(self):
        policies = self.of_kind("NetworkPolicy")
        self.require(
            any(policy["spec"]["podSelector"] == {}
                and set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
                and not policy["spec"].get("ingress")
                and not policy["spec"].get("egress") for policy in policies),
            "build", "no NetworkPolicy that denies everything else")
        for policy in policies:
            where = f"NetworkPolicy/{policy['metadata']['name']}"
            chosen = [ports for labels, ports in self.pods()
                      if selects(policy["spec"]["podSelector"], labels)]
            self.require(chosen, where, "selects no pods")
            known = {number for ports in chosen for number in ports.values()}
            for rule in policy["spec"].get("ingress") or []:
                self.require(rule.get("from"), where, "lets everybody in")
                for port in rule.get("ports", [{}]):
                    self.require(port.get("port") in known, where,
                                 f"opens port {port.get('port')} that nobody has")
            for rule in policy["spec"].get("egress") or []:
                self.require(rule.get("to"), where, "lets everything out")
        for labels, ports in self.pods():
            opened = {port.get("port") for policy in policies
                      if selects(policy["spec"]["podSelector"], labels)
                      for rule in policy["spec"].get("ingress") or []
                      for port in rule.get("ports", [])}
            for number in sorted(set(ports.values()) - opened):
                self.require(False, labels.get("app.kubernetes.io/name"),
                             f"nobody may reach port {number} of its pods")

    def check_scaling(self):
        for scaler in self.of_kind("HorizontalPodAutoscaler", "ScaledObject"):
            where = f"{scaler['kind']}/{scaler['metadata']['name']}"
            target = scaler["spec"]["scaleTargetRef"]
            kind = target.get("kind", "Deployment")
            workload = self.named(kind, target["name"])
            self.require(workload, where, f"no {kind} {target['name']} in the build")
            self.require(not workload or "replicas" not in workload["spec"], where,
                         f"{target['name']} sets replicas itself: each apply would undo")
            least = scaler["spec"].get("minReplicas",
                                       scaler["spec"].get("minReplicaCount", 0))
            self.require(least >= 1, where, "may scale to nothing")

    def check_monitors(self):
        for monitor in self.of_kind("PodMonitor"):
            where = f"PodMonitor/{monitor['metadata']['name']}"
            chosen = [ports for labels, ports in self.pods()
                      if selects(monitor["spec"]["selector"], labels)]
            self.require(chosen, where, "selects no pods")
            for ports in chosen:
                for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                    self.require(endpoint["port"] in ports, where,
                                 f"its pods have no port {endpoint['port']}")


def check(documents):
    """Findings over the documents of one build, as lines of text."""
    documents = [d for d in documents if d]
    return api_server_rules.check(documents) + Checker(documents).run()


def main():
    import yaml  # pylint: disable=import-outside-toplevel
    findings = check(yaml.safe_load_all(sys.stdin))
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
