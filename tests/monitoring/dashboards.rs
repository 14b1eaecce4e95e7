//! The dashboards of the chart, made from `dashboards.toml` beside this file.

use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};

use super::chart;

/// Columns of Grafana's grid.
const WIDTH: u64 = 24;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dashboard: Vec<Dashboard>,
}

/// One dashboard.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dashboard {
    pub(super) name: String,
    title: String,
    text: String,
    /// The metric whose label `instance` can be chosen.
    instance: Option<String>,
    row: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    panel: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    #[serde(default)]
    text: String,
    /// A number, and no course.
    #[serde(default)]
    stat: bool,
    #[serde(default = "short")]
    unit: String,
    /// Expressions with their legends.
    queries: Vec<(String, String)>,
}

fn short() -> String {
    "short".to_owned()
}

/// What the dashboards are made from.
pub(super) fn sources() -> Vec<Dashboard> {
    let file: File = toml::from_str(include_str!("dashboards.toml")).unwrap();
    file.dashboard
}

impl Dashboard {
    /// Every expression, in the order of panels.
    pub(super) fn expressions(&self) -> Vec<String> {
        let panels = self.row.iter().flat_map(|row| &row.panel);
        let queries = panels.flat_map(|panel| &panel.queries);
        queries.map(|(expression, _)| expression.clone()).collect()
    }

    fn json(&self) -> Value {
        let mut panels = Vec::new();
        let (mut x, mut y) = (0, 0);
        for row in &self.row {
            let place = json!({"x": 0, "y": y, "w": WIDTH, "h": 1});
            panels.push(json!({
                "type": "row", "title": row.title, "gridPos": place, "collapsed": false, "panels": [],
            }));
            y += 1;
            let mut height = 0;
            for panel in &row.panel {
                let (w, h) = if panel.stat { (6, 4) } else { (12, 8) };
                if x + w > WIDTH {
                    (x, y) = (0, y + height);
                }
                height = h;
                panels.push(panel.json(&json!({"x": x, "y": y, "w": w, "h": h})));
                x += w;
            }
            (x, y) = (0, y + height);
        }
        for (panel, id) in panels.iter_mut().zip(1..) {
            panel["id"] = json!(id);
        }
        json!({
            "uid": format!("turnfleet-{}", self.name),
            "title": self.title,
            "description": self.text,
            "tags": ["turnfleet"],
            "schemaVersion": 39,
            "editable": true,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": self.variables()},
            "annotations": {"list": []},
            "panels": panels,
        })
    }

    fn variables(&self) -> Vec<Value> {
        let mut list = vec![json!({
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        })];
        list.extend(self.instance.iter().map(|metric| {
            json!({
                "name": "instance", "label": "Relay", "type": "query", "datasource": source(),
                "query": format!("label_values({metric}, instance)"),
                "refresh": 2, "multi": true, "includeAll": true, "allValue": ".+",
                "current": {"text": "All", "value": "$__all"},
            })
        }));
        list
    }
}

impl Panel {
    fn json(&self, place: &Value) -> Value {
        let targets = self.queries.iter().zip('A'..);
        let targets: Vec<Value> = targets
            .map(|((expression, legend), id)| {
                json!({
                    "refId": id.to_string(), "datasource": source(), "expr": expression,
                    "legendFormat": legend, "instant": self.stat, "range": !self.stat,
                })
            })
            .collect();
        let options = if self.stat {
            json!({"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "none"})
        } else {
            json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}})
        };
        json!({
            "type": if self.stat { "stat" } else { "timeseries" },
            "title": self.title,
            "description": self.text,
            "datasource": source(),
            "gridPos": place,
            "fieldConfig": {"defaults": {"unit": self.unit}, "overrides": []},
            "options": options,
            "targets": targets,
        })
    }
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

#[test]
fn the_dashboards_of_the_chart_are_made_from_their_source() {
    let mut made = Vec::new();
    for dashboard in sources() {
        let text = serde_json::to_string_pretty(&dashboard.json()).unwrap() + "\n";
        let path = chart(&format!("dashboards/{}.json", dashboard.name));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == text,
            "{}: out of date; UPDATE_EXPECT=1 cargo test --test up dashboards writes it",
            path.display()
        );
        made.push(dashboard.name);
    }
    assert_eq!(made, ["fleet", "relay", "abuse"]);
}
