"""What a HorizontalPodAutoscaler does, from the same files that a cluster gets.

Reads deploy/k8s/components/{hpa,keda}: targets, bounds and behaviour. Used by
scripts/autoscale_simulate and by scripts/autoscale_local.

The algorithm is that of Kubernetes's controller (horizontal-pod-autoscaler, v2): each metric
proposes a number of replicas, the greatest counts; a proposal within the tolerance is none;
stabilisation takes the least restrictive proposal of a window; policies bound what changes
within their periods.
"""

import dataclasses
import math
import os

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
COMPONENTS = os.path.join(ROOT, "deploy", "k8s", "components")
SYNC_PERIOD = 15  # seconds between two looks of the controller
DEFAULT_TOLERANCE = 0.1

# Names in prometheus-adapter-values.yaml, and the recorded series behind them.
SERIES = {
    "switchyard_expert_busy_workers": "switchyard:expert_busy_workers:sum",
    "switchyard_expert_queue_pressure": "switchyard:expert_queue_pressure:ratio",
    "switchyard_attention_full_workers": "switchyard:attention_full_workers:sum",
}


def quantity(text):
    """Kubernetes's "600m", "0.6" or "2" as a number."""
    text = str(text)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


@dataclasses.dataclass(frozen=True)
class Metric:
    series: str
    per_replica: bool  # AverageValue: target for each replica; else for the whole
    target: float

    def proposal(self, value, current, tolerance_up, tolerance_down):
        """Replicas for this value, `current` if it is near enough to the target."""
        per_target = value / self.target
        ratio = per_target / current if self.per_replica else per_target
        if 1 - tolerance_down <= ratio <= 1 + tolerance_up:
            return current
        # Rounded against noise of the division, as the controller's milli-units do.
        return math.ceil(round(ratio * current, 3))


@dataclasses.dataclass(frozen=True)
class Direction:
    """Behaviour when scaling up, or down."""
    window: int
    tolerance: float
    policies: tuple  # (type, value, period in seconds)

    @staticmethod
    def read(spec, window):
        policies = tuple((p["type"], p["value"], p["periodSeconds"])
                         for p in spec.get("policies", ()))
        return Direction(spec.get("stabilizationWindowSeconds", window),
                         quantity(spec.get("tolerance", DEFAULT_TOLERANCE)), policies)


@dataclasses.dataclass(frozen=True)
class Rules:
    """One scaler's file."""
    least: int
    most: int
    metrics: tuple
    up: Direction
    down: Direction


def _behavior(spec):
    return (Direction.read(spec.get("scaleUp", {}), 0),
            Direction.read(spec.get("scaleDown", {}), 300))


def from_hpa(document):
    spec = document["spec"]
    metrics = []
    for metric in spec["metrics"]:
        external = metric["external"]
        target = external["target"]
        per_replica = target["type"] == "AverageValue"
        metrics.append(Metric(SERIES[external["metric"]["name"]], per_replica, quantity(
            target["averageValue" if per_replica else "value"])))
    return Rules(spec["minReplicas"], spec["maxReplicas"], tuple(metrics),
                 *_behavior(spec.get("behavior", {})))


def from_keda(document):
    spec = document["spec"]
    metrics = []
    for trigger in spec["triggers"]:
        query = trigger["metadata"]["query"]
        series = [name for name in SERIES.values() if name in query]
        if len(series) != 1:
            raise ValueError(f"not one known series in {query}")
        metrics.append(Metric(series[0], trigger["metricType"] == "AverageValue",
                              quantity(trigger["metadata"]["threshold"])))
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    return Rules(spec["minReplicaCount"], spec["maxReplicaCount"], tuple(metrics),
                 *_behavior(behavior))


def load(scaler="hpa", pool="expert-worker"):
    """The Rules of a pool, from components/hpa or components/keda."""
    import yaml  # pylint: disable=import-outside-toplevel
    path = os.path.join(COMPONENTS, scaler, f"{pool}.yaml")
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    return (from_hpa if scaler == "hpa" else from_keda)(document)


class Scaler:
    """The controller's memory for one target. Time is any clock in seconds."""

    def __init__(self, rules):
        self.rules = rules
        self._proposals = []  # (time, replicas)
        self._changes = []  # (time, by how much)

    def _changed(self, now, period, sign):
        """How many replicas were added (sign 1) or removed (-1) within `period`."""
        return sum(sign * by for time, by in self._changes
                   if now - time < period and sign * by > 0)

    def _bound(self, now, current, sign):
        """The furthest number of replicas that the policies allow now."""
        direction = self.rules.up if sign > 0 else self.rules.down
        if not direction.policies:
            return self.rules.most if sign > 0 else self.rules.least
        bounds = []
        for kind, value, period in direction.policies:
            start = current - sign * self._changed(now, period, sign)
            if kind == "Pods":
                bounds.append(start + sign * value)
            elif sign > 0:
                bounds.append(math.ceil(start * (1 + value / 100)))
            else:
                bounds.append(math.floor(start * (1 - value / 100)))
        return max(bounds) if sign > 0 else min(bounds)

    def desired(self, now, current, values):
        """Replicas to have from now on. values: {series: number}, all of them."""
        rules = self.rules
        proposal = max(m.proposal(values[m.series], current, rules.up.tolerance,
                                  rules.down.tolerance) for m in rules.metrics)
        proposal = min(max(proposal, rules.least), rules.most)
        self._proposals = [(t, r) for t, r in self._proposals
                           if now - t < max(rules.up.window, rules.down.window)]
        self._proposals.append((now, proposal))
        lowest = min(r for t, r in self._proposals if now - t <= rules.up.window)
        highest = max(r for t, r in self._proposals if now - t <= rules.down.window)
        wanted = min(max(current, lowest), highest)
        if wanted > current:
            wanted = min(wanted, max(current, self._bound(now, current, 1)))
        elif wanted < current:
            wanted = max(wanted, min(current, self._bound(now, current, -1)))
        wanted = min(max(wanted, rules.least), rules.most)
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted
