"""What an API server refuses of built Kubernetes manifests beyond its schema; a part of
scripts/check_manifests.py.

A schema says that a probe has a successThreshold; the server also says that a liveness
probe's is 1. This knows the server's rules for the kinds and fields that deploy/k8s uses
(Kubernetes' API reference and pkg/apis/*/validation name them), so that `kubectl apply`
does not find out first.
"""

import decimal
import ipaddress
import re

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1035
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?")
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
UNITS = {None: 1, "m": decimal.Decimal("0.001"),
         **{unit: 1000 ** (i + 1) for i, unit in enumerate("kMGTPE")},
         **{f"{unit}i": 1024 ** (i + 1) for i, unit in enumerate("KMGTPE")}}
HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket", "sleep")
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass",
                "ClusterIssuer", "PersistentVolume", "StorageClass", "APIService")


def quantity(text):
    """A resource quantity as a number; None if it is none."""
    match = QUANTITY.fullmatch(str(text))
    return decimal.Decimal(match.group(1)) * UNITS[match.group(2)] if match else None


def duplicates(values):
    seen = set()
    return sorted({str(v) for v in values if v in seen or seen.add(v)})


class Rules:
    """Collects findings over one build."""

    def __init__(self, documents):
        self.documents = documents
        self.findings = []
        self.where = "build"

    def require(self, condition, what):
        if not condition:
            self.findings.append(f"{self.where}: {what}")

    def matches(self, pattern, text, what):
        self.require(pattern.fullmatch(str(text)), f"{what} {text!r} is no valid name")

    def unique(self, values, what):
        for value in duplicates(values):
            self.require(False, f"{what} {value} is there twice")

    def run(self):
        self.unique([(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"])
                     for d in self.documents], "object")
        checks = {"Service": self.service, "ConfigMap": self.config_map,
                  "PodDisruptionBudget": self.disruption_budget,
                  "HorizontalPodAutoscaler": self.autoscaler,
                  "NetworkPolicy": self.network_policy}
        for document in self.documents:
            self.where = f"{document['kind']}/{document['metadata']['name']}"
            self.metadata(document)
            if document["kind"] in WORKLOADS:
                self.workload(document)
            elif document["kind"] in checks:
                checks[document["kind"]](document["spec"] if "spec" in document
                                         else document)
        return self.findings

    def metadata(self, document):
        metadata = document["metadata"]
        pattern = SERVICE_NAME if document["kind"] == "Service" else SUBDOMAIN
        if not document["apiVersion"].startswith("rbac."):
            self.matches(pattern, metadata["name"], "name")
        self.require(len(metadata["name"]) <= 253, "name is longer than 253")
        if document["kind"] in CLUSTER_WIDE:
            self.require("namespace" not in metadata, "has a namespace, and is of none")
        self.labels(metadata.get("labels") or {})
        annotations = metadata.get("annotations") or {}
        for key in annotations:
            self.label_key(key)
        self.require(sum(len(k) + len(v) for k, v in annotations.items()) <= 256 * 1024,
                     "annotations are larger than 256 KiB")

    def label_key(self, key):
        prefix, slash, name = key.rpartition("/")
        self.require(not slash or (SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253),
                     f"{key}: the prefix is no domain name")
        self.require(name and VALUE.fullmatch(name), f"{key} is no valid key")

    def labels(self, labels):
        for key, value in labels.items():
            self.label_key(key)
            self.require(isinstance(value, str) and VALUE.fullmatch(value),
                         f"{key}: {value!r} is no valid label")

    def selector(self, selector):
        self.labels(selector.get("matchLabels") or {})
        for expression in selector.get("matchExpressions") or []:
            self.label_key(expression["key"])
            takes_values = expression["operator"] in ("In", "NotIn", "Gt", "Lt")
            self.require(bool(expression.get("values")) == takes_values,
                         f"{expression['key']} {expression['operator']}: values "
                         + ("are missing" if takes_values else "are not allowed"))

    def workload(self, workload):
        spec = workload["spec"]
        self.selector(spec["selector"])
        self.require(spec["selector"].get("matchLabels")
                     or spec["selector"].get("matchExpressions"), "an empty selector")
        strategy = spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            self.require("rollingUpdate" not in strategy,
                         "rollingUpdate is not allowed with Recreate")
        rolling = strategy.get("rollingUpdate") or {}
        self.require(not all(str(rolling.get(field, 1)).rstrip("%") == "0"
                             for field in ("maxSurge", "maxUnavailable")),
                     "maxSurge and maxUnavailable are both 0: nothing would roll")
        pod = spec["template"]["spec"]
        self.require(pod.get("restartPolicy", "Always") == "Always",
                     "restartPolicy is not Always")
        self.labels(spec["template"]["metadata"].get("labels") or {})
        self.pod(pod, [c["metadata"]["name"]
                       for c in spec.get("volumeClaimTemplates") or []])

    def pod(self, pod, claims):
        containers = (pod.get("initContainers") or []) + pod["containers"]
        self.unique([c["name"] for c in containers], "container")
        volumes = pod.get("volumes") or []
        self.unique([v["name"] for v in volumes], "volume")
        for volume in volumes:
            self.matches(LABEL, volume["name"], "volume")
            self.require(len(volume) == 2, f"volume {volume['name']} has not one source")
        grace = pod.get("terminationGracePeriodSeconds", 30)
        self.require(grace >= 0, "terminationGracePeriodSeconds is negative")
        for container in containers:
            self.container(container, {v["name"] for v in volumes} | set(claims), grace)
        for key, value in (pod.get("nodeSelector") or {}).items():
            self.labels({key: value})
        self.unique([(c["topologyKey"], c["whenUnsatisfiable"])
                     for c in pod.get("topologySpreadConstraints") or []],
                    "topology spread constraint")
        for constraint in pod.get("topologySpreadConstraints") or []:
            self.require(constraint["maxSkew"] > 0, "maxSkew is not positive")
            self.label_key(constraint["topologyKey"])
        for toleration in pod.get("tolerations") or []:
            self.require(toleration.get("operator") != "Exists"
                         or "value" not in toleration, "Exists tolerates no value")
            self.require("tolerationSeconds" not in toleration
                         or toleration.get("effect") == "NoExecute",
                         "tolerationSeconds is for NoExecute")
        self.affinity(pod.get("affinity") or {})

    def affinity(self, affinity):
        for kind in affinity.values():
            for term in kind.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
                self.require(1 <= term["weight"] <= 100, "weight is not in 1-100")

    def container(self, container, volumes, grace):
        name = container["name"]
        self.matches(LABEL, name, "container")
        ports = container.get("ports") or []
        self.unique([p["name"] for p in ports if "name" in p], f"{name}: port")
        for port in ports:
            self.require(1 <= port["containerPort"] <= 65535,
                         f"{name}: no port {port['containerPort']}")
            if "name" in port:
                self.matches(PORT_NAME, port["name"], f"{name}: port")
        for variable in container.get("env") or []:
            self.matches(VARIABLE, variable["name"], f"{name}: variable")
            self.require(not ("value" in variable and "valueFrom" in variable),
                         f"{name}: {variable['name']} has a value twice")
        mounts = container.get("volumeMounts") or []
        self.unique([m["mountPath"] for m in mounts], f"{name}: mount")
        for mount in mounts:
            self.require(mount["name"] in volumes, f"{name}: no volume {mount['name']}")
            self.require(":" not in mount["mountPath"], f"{name}: ':' in a mount's path")
        self.resources(name, container.get("resources") or {})
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if kind in container:
                self.probe(f"{name}: {kind}", kind, container[kind])
        for hook in (container.get("lifecycle") or {}).values():
            self.require(sum(h in hook for h in HANDLERS) == 1,
                         f"{name}: a hook has not one handler")
            sleep = hook.get("sleep", {}).get("seconds", 1)
            self.require(1 <= sleep <= grace,
                         f"{name}: sleeps {sleep} s, which is not within 1-{grace}")
        context = container.get("securityContext") or {}
        self.require(not (context.get("allowPrivilegeEscalation") is False
                          and (context.get("privileged") or "SYS_ADMIN" in (
                              context.get("capabilities") or {}).get("add", []))),
                     f"{name}: privileged, and may not escalate")

    def resources(self, name, resources):
        requests = resources.get("requests") or {}
        limits = resources.get("limits") or {}
        for amounts in (requests, limits):
            for resource, amount in amounts.items():
                number = quantity(amount)
                self.require(number is not None and number >= 0,
                             f"{name}: {resource} {amount!r} is no quantity")
        huge = [r for r in {**requests, **limits} if r.startswith("hugepages-")]
        for resource, limit in limits.items():
            least, most = quantity(requests.get(resource, limit)), quantity(limit)
            if least is None or most is None:
                continue
            self.require(least <= most, f"{name}: asks for more {resource} than its limit")
            self.require(resource not in huge or least == most,
                         f"{name}: {resource}: request and limit differ")
        for resource in huge:
            self.require(resource in limits, f"{name}: {resource} has no limit")
            self.require({"cpu", "memory"} & {*requests, *limits},
                         f"{name}: huge pages without CPU or memory")

    def probe(self, where, kind, probe):
        self.require(sum(h in probe for h in HANDLERS if h != "sleep") == 1,
                     f"{where} has not one handler")
        if "grpc" in probe:
            self.require(isinstance(probe["grpc"].get("port"), int),
                         f"{where}: gRPC takes a port's number")
        for field in ("timeoutSeconds", "periodSeconds", "successThreshold",
                      "failureThreshold"):
            self.require(probe.get(field, 1) >= 1, f"{where}: {field} is below 1")
        if kind != "readinessProbe":
            self.require(probe.get("successThreshold", 1) == 1,
                         f"{where}: successThreshold is not 1")
        else:
            self.require("terminationGracePeriodSeconds" not in probe,
                         f"{where}: terminationGracePeriodSeconds is not allowed")

    def service(self, spec):
        ports = spec.get("ports") or []
        self.require(ports or spec.get("clusterIP") == "None"
                     or spec.get("type") == "ExternalName", "no port")
        if len(ports) > 1:
            self.require(all("name" in p for p in ports), "several ports need names")
        self.unique([p["name"] for p in ports if "name" in p], "port")
        self.unique([(p["port"], p.get("protocol", "TCP")) for p in ports], "port")
        for port in ports:
            self.require(1 <= port["port"] <= 65535, f"no port {port['port']}")
            if isinstance(port.get("targetPort"), str):
                self.matches(PORT_NAME, port["targetPort"], "targetPort")
            if "name" in port:
                self.matches(LABEL, port["name"], "port")
        self.labels(spec.get("selector") or {})

    def config_map(self, document):
        both = [*(document.get("data") or {}), *(document.get("binaryData") or {})]
        self.unique(both, "key")
        for key in both:
            self.matches(CONFIG_KEY, key, "key")
        size = sum(len(v.encode()) for v in (document.get("data") or {}).values())
        self.require(size <= 1 << 20, f"{size} bytes of data, and 1 MiB is allowed")

    def disruption_budget(self, spec):
        self.require(("minAvailable" in spec) + ("maxUnavailable" in spec) == 1,
                     "wants one of minAvailable and maxUnavailable")
        self.selector(spec["selector"])

    def autoscaler(self, spec):
        least = spec.get("minReplicas", 1)
        self.require(1 <= least <= spec["maxReplicas"],
                     f"minReplicas {least} is not within 1-{spec['maxReplicas']}")
        self.require(spec.get("metrics"), "no metric")
        for metric in spec.get("metrics") or []:
            kind = metric["type"]
            part = metric.get(kind[0].lower() + kind[1:])
            self.require(part is not None, f"metric of type {kind} without its part")
            target = (part or {}).get("target", {})
            field = {"Value": "value", "AverageValue": "averageValue",
                     "Utilization": "averageUtilization"}.get(target.get("type"))
            self.require(field in target, f"target of type {target.get('type')} has none")
            number = quantity(target.get(field, 1))
            self.require(number is not None and number > 0, "target is not positive")
            self.require(kind != "Pods" or target.get("type") == "AverageValue",
                         "a metric of pods takes AverageValue")
        for direction in (spec.get("behavior") or {}).values():
            window = direction.get("stabilizationWindowSeconds", 0)
            self.require(0 <= window <= 3600,
                         f"stabilizationWindowSeconds {window} is not within 0-3600")
            self.require(direction.get("policies", [None]), "no policy")
            for policy in direction.get("policies") or []:
                self.require(policy["value"] > 0, "a policy's value is not positive")
                self.require(1 <= policy["periodSeconds"] <= 1800,
                             "a policy's periodSeconds is not within 1-1800")

    def network_policy(self, spec):
        self.selector(spec["podSelector"])
        for rule in (spec.get("ingress") or []) + (spec.get("egress") or []):
            for peer in (rule.get("from") or []) + (rule.get("to") or []):
                self.require(peer, "an empty peer")
                self.require("ipBlock" not in peer or len(peer) == 1,
                             "ipBlock stands beside another selector")
                self.ip_block(peer.get("ipBlock"))
                for field in ("podSelector", "namespaceSelector"):
                    self.selector(peer.get(field) or {})
            for port in rule.get("ports") or []:
                end = port.get("endPort")
                self.require(end is None or (isinstance(port.get("port"), int)
                                             and end >= port["port"]),
                             "endPort is below port, or without one")

    def ip_block(self, block):
        if block is None:
            return
        try:
            whole = ipaddress.ip_network(block["cidr"])
            inner = [ipaddress.ip_network(part) for part in block.get("except") or []]
        except ValueError as error:
            self.require(False, f"ipBlock: {error}")
            return
        for part in inner:
            self.require(part.version == whole.version and part.subnet_of(whole)
                         and part != whole, f"except {part} is not inside of {whole}")


def check(documents):
    """Findings over the documents of one build, as lines of text."""
    return Rules([d for d in documents if d]).run()
