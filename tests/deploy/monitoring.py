"""Rules, dashboards and a Prometheus of our own for the tests of monitoring."""

import glob
import json
import os
import re
import urllib.parse

import yaml

import manifests  # first: it makes scripts/ importable
import local_cluster

FOLDER = os.path.join(manifests.K8S, "monitoring")
WINDOW = "15s"  # for Grafana's $__rate_interval
NAMESPACE = "switchyard"

# Names of series in an expression. Everything of ours has a prefix.
METRIC = re.compile(
    r"\b(?:switchyard|vllm|sglang|http|process)[_:][a-z0-9_:]+|\bup\b|\bALERTS\b")


def rule_groups():
    """All groups of all PrometheusRules."""
    groups = []
    for path in sorted(glob.glob(os.path.join(FOLDER, "*.yaml"))):
        with open(path, encoding="utf-8") as file:
            for document in yaml.safe_load_all(file):
                if document.get("kind") == "PrometheusRule":
                    groups += document["spec"]["groups"]
    return groups


def rules(kind):
    """{name: rule} of the rules of a kind, "alert" or "record"."""
    return {rule[kind]: rule for group in rule_groups() for rule in group["rules"]
            if kind in rule}


def dashboards():
    """{file name: dashboard}."""
    found = {}
    for path in sorted(glob.glob(os.path.join(FOLDER, "dashboards", "*.json"))):
        with open(path, encoding="utf-8") as file:
            found[os.path.basename(path)] = json.load(file)
    return found


def panel_queries():
    """(where, expression) of every query, with Grafana's variables filled in."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                text = target["expr"].replace("$namespace", ".*").replace(
                    "$__rate_interval", WINDOW)
                yield f"{name}: {panel['title']}: {target['legendFormat']}", text


def metric_names(text):
    """Names of series in an expression; label values and names are left out."""
    without_labels = re.sub(r"\{[^}]*\}", "", text)
    without_labels = re.sub(r"(?:by|on|ignoring|group_left) \([^)]*\)", "",
                            without_labels)
    return set(METRIC.findall(without_labels))


class Prometheus:
    """Debian's Prometheus over a local cluster, with labels as PodMonitors give them."""

    def __init__(self, folder, targets, groups, interval="1s"):
        """targets: (job, pod, port); groups: rule groups, evaluated every `interval`."""
        self.port = local_cluster.free_port()
        rule_file = os.path.join(folder, "rules.yaml")
        with open(rule_file, "w", encoding="utf-8") as file:
            yaml.safe_dump({"groups": [{**g, "interval": interval} for g in groups]}, file)
        jobs = {}
        for job, pod, port in targets:
            jobs.setdefault(job, []).append({
                "targets": [f"{local_cluster.LOOPBACK}:{port}"],
                "labels": {"namespace": NAMESPACE, "pod": pod}})
        config = os.path.join(folder, "prometheus.yaml")
        with open(config, "w", encoding="utf-8") as file:
            yaml.safe_dump({
                "global": {"scrape_interval": interval, "scrape_timeout": interval},
                "rule_files": [rule_file],
                "scrape_configs": [{"job_name": job, "static_configs": configs}
                                   for job, configs in jobs.items()]}, file)
        self.process = local_cluster.Process("prometheus", [
            "prometheus", f"--config.file={config}",
            f"--storage.tsdb.path={os.path.join(folder, 'data')}",
            f"--web.listen-address={local_cluster.LOOPBACK}:{self.port}"])

    def wait_ready(self):
        local_cluster.wait_until(
            lambda: local_cluster.get(self.port, "/-/ready")[0] == 200,
            "Prometheus", 60, [self.process])

    def api(self, path, **parameters):
        """The data of an answer of its API; AssertionError if it is an error."""
        query = urllib.parse.urlencode(parameters)
        _, body = local_cluster.get(self.port, f"/api/v1/{path}?{query}", timeout=60)
        answer = json.loads(body)
        if answer["status"] != "success":
            raise AssertionError(f"{path} {parameters}: {answer.get('error')}")
        return answer["data"]

    def query(self, text):
        """The result of an instant query: a list of {metric, value}."""
        data = self.api("query", query=text)
        return data["result"] if data["resultType"] == "vector" else [data["result"]]

    def close(self):
        self.process.close()


def targets(cluster):
    """(job, pod, port) of a local_cluster.Cluster."""
    found = [("switchyard-router", "router-0", cluster.port),
             ("switchyard-attention-worker", "attention-worker-0",
              cluster.attention_metrics_port)]
    for index, port in enumerate(cluster.expert_metrics_ports):
        found.append(("switchyard-expert-worker", f"expert-worker-{index}", port))
    return found


def elastic_targets(cluster):
    """(job, pod, port) of a local_cluster.ElasticCluster."""
    found = [("switchyard-router", "router-0", cluster.port)]
    for worker in cluster.attention:
        found.append(("switchyard-attention-worker", worker.name, worker.metrics_port))
    for worker in cluster.experts.values():
        found.append(("switchyard-expert-worker", worker.name, worker.metrics_port))
    return found
