#!/usr/bin/env python3
"""Writes Grafana's dashboards from deploy/k8s/monitoring/dashboards.py.

    scripts/make_dashboards.py          writes deploy/k8s/monitoring/dashboards/*.json
    scripts/make_dashboards.py --check  exit code 1 if a file is not what would be written

A dashboard is a list of rows of panels: what to show and why is there; how Grafana wants
it is here.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "deploy/k8s/monitoring"
sys.path.insert(0, str(FOLDER))

WIDTH = 24  # Grafana's grid
HEIGHT = 8
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def expression(text):
    """NS is the chosen namespace, [R] Grafana's window for rates."""
    return text.replace("NS", 'namespace=~"$namespace"').replace(
        "[R]", "[$__rate_interval]")


def panel_json(number, panel, position):
    """One panel; `panel` is a dashboards.Panel."""
    targets = []
    for index, (legend, text) in enumerate(panel.queries):
        targets.append({"refId": chr(ord("A") + index), "datasource": SOURCE,
                        "expr": expression(text), "legendFormat": legend})
    custom = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom = {"fillOpacity": 60, "showPoints": "never",
                  "stacking": {"mode": "normal", "group": "A"}}
    return {
        "id": number, "type": "timeseries", "title": panel.title,
        "description": panel.why, "datasource": SOURCE, "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom},
                        "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": targets,
    }


def dashboard_json(dashboard):
    """One dashboard; `dashboard` is a dashboards.Dashboard."""
    panels = []
    top = 0
    for row in dashboard.rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title,
                       "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}})
        top += 1
        width = WIDTH // len(row.panels)
        for column, panel in enumerate(row.panels):
            position = {"x": column * width, "y": top, "w": width, "h": HEIGHT}
            panels.append(panel_json(len(panels) + 1, panel, position))
        top += HEIGHT
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "namespace", "type": "query", "datasource": SOURCE,
         "query": "label_values(switchyard_build_info, namespace)", "refresh": 2,
         "includeAll": True, "multi": True, "current": {"text": "All",
                                                        "value": "$__all"}},
    ]
    return {
        "uid": f"switchyard-{dashboard.name}", "title": f"Switchyard / {dashboard.title}",
        "description": dashboard.why, "tags": ["switchyard"], "schemaVersion": 39,
        "timezone": "browser", "editable": False, "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["switchyard"], "title": "Switchyard",
                   "asDropdown": True}],
        "templating": {"list": variables}, "panels": panels,
    }


def main():
    from dashboards import DASHBOARDS  # pylint: disable=import-outside-toplevel
    wanted = {f"{d.name}.json": json.dumps(dashboard_json(d), indent=1) + "\n"
              for d in DASHBOARDS}
    folder = FOLDER / "dashboards"
    if "--check" in sys.argv[1:]:
        found = {path.name: path.read_text() for path in folder.glob("*.json")}
        wrong = sorted(name for name in wanted.keys() | found.keys()
                       if wanted.get(name) != found.get(name))
        for name in wrong:
            print(f"{name} is not what scripts/make_dashboards.py writes")
        return 1 if wrong else 0
    for name, text in wanted.items():
        (folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
