//! A panel as Grafana reads it.

use serde_json::{Map, Value, json};

use super::{Column, Kind, Limits, Panel, Target};

/// The colour of what is not known.
const ABSENT: &str = "#808080";

/// The data source of everything: a variable of each dashboard.
pub(in crate::dashboards) fn datasource() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Panel {
    /// What Grafana reads.
    pub(in crate::dashboards) fn json(&self, id: usize, (x, y): (u32, u32)) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.type_name(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": self.targets_json(),
            "fieldConfig": {"defaults": self.defaults(), "overrides": self.overrides()},
            "options": self.options(),
        });
        if self.kind == Kind::Table {
            panel["transformations"] = self.transformations();
        }
        panel
    }

    const fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Stat => "stat",
            Kind::Bars => "bargauge",
            Kind::Lines | Kind::Stack => "timeseries",
            Kind::Table => "table",
        }
    }

    fn targets_json(&self) -> Vec<Value> {
        let letters = ('A'..='Z').map(String::from);
        let target = |(letter, target): (String, &Target)| {
            json!({
                "refId": letter,
                "datasource": datasource(),
                "expr": target.expr.text(),
                "legendFormat": target.legend,
                "instant": self.is_instant(),
                "range": !self.is_instant(),
                "format": if self.kind == Kind::Table { "table" } else { "time_series" },
            })
        };
        letters.zip(&self.targets).map(target).collect()
    }

    fn defaults(&self) -> Value {
        let mut defaults = json!({
            "unit": self.unit,
            "noValue": self.no_value,
            "thresholds": self.limits.json(),
            "mappings": self.mappings(),
            "decimals": self.decimals,
            "min": if self.kind == Kind::Table || self.is_signed { Value::Null } else { json!(0) },
        });
        if matches!(self.kind, Kind::Lines | Kind::Stack) {
            defaults["custom"] = self.drawing();
        }
        if self.kind == Kind::Table {
            defaults["custom"] = json!({"align": "auto", "filterable": false});
        }
        defaults
    }

    /// A line is coloured by its series; where a limit exists it is drawn.
    fn drawing(&self) -> Value {
        let is_stack = self.kind == Kind::Stack;
        let mode = if matches!(self.limits, Limits::None) { "off" } else { "dashed" };
        json!({
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": if is_stack { 40 } else { 8 },
            "showPoints": "never",
            "spanNulls": false,
            "stacking": {"mode": if is_stack { "normal" } else { "none" }, "group": "A"},
            "thresholdsStyle": {"mode": mode},
        })
    }

    fn mappings(&self) -> Value {
        // Absent is neither good nor bad.
        let absent = json!({"type": "special", "options": {
            "match": "null+nan", "result": {"color": ABSENT, "index": self.names.len()},
        }});
        if self.names.is_empty() {
            return json!([absent]);
        }
        let option = |(index, (value, text, color)): (usize, &(&str, &str, &str))| {
            ((*value).to_owned(), json!({"text": text, "color": color, "index": index}))
        };
        let options: Map<String, Value> = self.names.iter().enumerate().map(option).collect();
        json!([{"type": "value", "options": options}, absent])
    }

    fn overrides(&self) -> Vec<Value> {
        self.columns.iter().map(|column| column.overrides(self.link)).collect()
    }

    fn options(&self) -> Value {
        match self.kind {
            Kind::Stat => json!({
                // Words are wider than figures: one beside the other they run over each other.
                "orientation": if self.names.is_empty() { "auto" } else { "horizontal" },
                "colorMode": if matches!(self.limits, Limits::None) { "none" } else { "background" },
                "graphMode": "none",
                "textMode": "auto",
                "text": {"titleSize": 12, "valueSize": 22},
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            Kind::Bars => json!({
                "orientation": "horizontal",
                "displayMode": "basic",
                "namePlacement": "left",
                "valueMode": "text",
                "showUnfilled": true,
                "text": {"titleSize": 12, "valueSize": 14},
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            Kind::Lines | Kind::Stack => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Table => json!({"showHeader": true, "cellHeight": "sm", "sortBy": self.sort_by()}),
        }
    }

    /// A table begins with the largest of its first value.
    fn sort_by(&self) -> Value {
        let first = self.columns.iter().find(|column| column.field == "Value #A");
        first.map_or_else(|| json!([]), |column| json!([{"displayName": column.title, "desc": true}]))
    }

    /// All queries side by side, the wanted fields under their titles.
    fn transformations(&self) -> Value {
        let include: Map<String, Value> =
            self.columns.iter().map(|column| (column.field.to_owned(), json!(true))).collect();
        let order: Map<String, Value> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| (column.field.to_owned(), json!(at)))
            .collect();
        let names: Map<String, Value> =
            self.columns.iter().map(|column| (column.field.to_owned(), json!(column.title))).collect();
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {
                "includeByName": include, "indexByName": order, "renameByName": names, "excludeByName": {},
            }},
        ])
    }
}

impl Column {
    fn overrides(&self, link: Option<&str>) -> Value {
        // The panel's own text would stand in every empty cell.
        let mut properties =
            vec![json!({"id": "unit", "value": self.unit}), json!({"id": "noValue", "value": "-"})];
        if !matches!(self.limits, Limits::None) {
            properties.push(json!({"id": "thresholds", "value": self.limits.json()}));
            let cell = json!({"type": "color-background", "mode": "basic"});
            properties.push(json!({"id": "custom.cellOptions", "value": cell}));
        }
        if self.width > 0 {
            properties.push(json!({"id": "custom.width", "value": self.width}));
        }
        if let (Some(url), "domain") = (link, self.field) {
            let links = json!([{"title": "Open this VM", "url": url, "targetBlank": false}]);
            properties.push(json!({"id": "links", "value": links}));
        }
        json!({"matcher": {"id": "byName", "options": self.title}, "properties": properties})
    }
}

impl Limits {
    fn json(self) -> Value {
        let step = |color: &str, value: Option<f64>| json!({"color": color, "value": value});
        let steps = match self {
            Self::None => vec![step("text", None)],
            Self::Above(yellow, red) => {
                vec![step("green", None), step("yellow", Some(yellow)), step("red", Some(red))]
            }
            Self::Bad(red) => vec![step("green", None), step("red", Some(red))],
            Self::Good(green) => vec![step("red", None), step("green", Some(green))],
        };
        json!({"mode": "absolute", "steps": steps})
    }
}
