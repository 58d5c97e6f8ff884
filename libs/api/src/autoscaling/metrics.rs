//! Metrics in words of version 1 and of version 2: one table for both ways.

use super::{in_order, list_of};
use crate::json::as_go;
use serde_json::{Value, json};

/// What version 1 writes where there is nothing.
#[derive(Clone, Copy)]
enum Empty {
    Nothing,
    Text,
    /// A quantity, which is no pointer in Go.
    Zero,
}

/// How the type of a target follows from what version 1 says.
#[derive(Clone, Copy)]
enum Target {
    /// Of what was measured there is no type.
    None,
    Always(&'static str),
    /// The one or the other, by whether the field is there.
    By(&'static str, &'static str, &'static str),
}

/// Its name in version 1, its place in version 2.
type Field = (&'static str, &'static str, Empty);

pub(super) struct Source {
    name: &'static str,
    fields: &'static [Field],
    target: Target,
}

use Empty::{Nothing, Text, Zero};

pub(super) const WANTED: [Source; 5] = [
    Source {
        name: "object",
        fields: &[
            ("target", "/describedObject", Text),
            ("metricName", "/metric/name", Text),
            ("targetValue", "/target/value", Zero),
            ("selector", "/metric/selector", Nothing),
            ("averageValue", "/target/averageValue", Nothing),
        ],
        target: Target::By("averageValue", "AverageValue", "Value"),
    },
    Source {
        name: "pods",
        fields: &[
            ("metricName", "/metric/name", Text),
            ("targetAverageValue", "/target/averageValue", Zero),
            ("selector", "/metric/selector", Nothing),
        ],
        target: Target::Always("AverageValue"),
    },
    Source {
        name: "resource",
        fields: &[
            ("name", "/name", Text),
            ("targetAverageUtilization", "/target/averageUtilization", Nothing),
            ("targetAverageValue", "/target/averageValue", Nothing),
        ],
        target: Target::By("targetAverageUtilization", "Utilization", "AverageValue"),
    },
    Source {
        name: "containerResource",
        fields: &[
            ("name", "/name", Text),
            ("targetAverageUtilization", "/target/averageUtilization", Nothing),
            ("targetAverageValue", "/target/averageValue", Nothing),
            ("container", "/container", Text),
        ],
        target: Target::By("targetAverageUtilization", "Utilization", "AverageValue"),
    },
    Source {
        name: "external",
        fields: &[
            ("metricName", "/metric/name", Text),
            ("metricSelector", "/metric/selector", Nothing),
            ("targetValue", "/target/value", Nothing),
            ("targetAverageValue", "/target/averageValue", Nothing),
        ],
        target: Target::By("targetValue", "Value", "AverageValue"),
    },
];

pub(super) const CURRENT: [Source; 5] = [
    Source {
        name: "object",
        fields: &[
            ("target", "/describedObject", Text),
            ("metricName", "/metric/name", Text),
            ("currentValue", "/current/value", Zero),
            ("selector", "/metric/selector", Nothing),
            ("averageValue", "/current/averageValue", Nothing),
        ],
        target: Target::None,
    },
    Source {
        name: "pods",
        fields: &[
            ("metricName", "/metric/name", Text),
            ("currentAverageValue", "/current/averageValue", Zero),
            ("selector", "/metric/selector", Nothing),
        ],
        target: Target::None,
    },
    Source {
        name: "resource",
        fields: &[
            ("name", "/name", Text),
            ("currentAverageUtilization", "/current/averageUtilization", Nothing),
            ("currentAverageValue", "/current/averageValue", Zero),
        ],
        target: Target::None,
    },
    Source {
        name: "containerResource",
        fields: &[
            ("name", "/name", Text),
            ("currentAverageUtilization", "/current/averageUtilization", Nothing),
            ("currentAverageValue", "/current/averageValue", Zero),
            ("container", "/container", Text),
        ],
        target: Target::None,
    },
    Source {
        name: "external",
        fields: &[
            ("metricName", "/metric/name", Text),
            ("metricSelector", "/metric/selector", Nothing),
            ("currentValue", "/current/value", Zero),
            ("currentAverageValue", "/current/averageValue", Nothing),
        ],
        target: Target::None,
    },
];

/// Metrics of version 2, as the annotation says them.
pub(super) fn written(metrics: &[Value], sources: &[Source]) -> String {
    list_of(metrics.iter().map(|metric| {
        let given = sources.iter().filter(|source| metric[source.name].is_object());
        let given = given.map(|source| (source.name, source.written(&metric[source.name])));
        in_order([("type", as_go(&metric["type"]))].into_iter().chain(given))
    }))
}

/// Metrics of version 2 of what an annotation says; `None` when it is something else.
pub(super) fn read(metrics: &Value, sources: &[Source]) -> Option<Vec<Value>> {
    let read = |metric: &Value| {
        metric.as_object()?;
        let mut out = json!({"type": metric["type"].as_str().unwrap_or_default()});
        for source in sources.iter().filter(|source| !metric[source.name].is_null()) {
            out[source.name] = source.read(&metric[source.name])?;
        }
        Some(out)
    };
    metrics.as_array()?.iter().map(read).collect()
}

impl Source {
    fn written(&self, of: &Value) -> String {
        let found = |(name, place, empty): &Field| {
            let value = of.pointer(place).unwrap_or(&Value::Null);
            let text = match (value, empty) {
                (Value::Null, Nothing) => return None,
                (Value::Null, Text) => "\"\"".to_owned(),
                (Value::Null, Zero) => "\"0\"".to_owned(),
                _ if *name == "target" => structure(value, &["kind", "name", "apiVersion"]),
                _ if name.to_ascii_lowercase().ends_with("selector") => selector(value),
                _ => as_go(value),
            };
            Some((*name, text))
        };
        in_order(self.fields.iter().filter_map(found))
    }

    fn read(&self, of: &Value) -> Option<Value> {
        of.as_object()?;
        let mut out = json!({});
        for (name, place, empty) in self.fields {
            let value = match (&of[*name], empty) {
                (Value::Null, Nothing) => continue,
                (Value::Null, Text) if *name == "target" => json!({"kind": "", "name": ""}),
                (Value::Null, Text) => json!(""),
                (Value::Null, Zero) => json!("0"),
                (Value::Number(number), Zero) => json!(number.to_string()),
                (value, _) => value.clone(),
            };
            let (parent, field) = place.rsplit_once('/')?;
            let mut at = &mut out;
            for step in parent.split('/').filter(|step| !step.is_empty()) {
                at = &mut at[step];
            }
            at[field] = value;
        }
        let kind = match self.target {
            Target::None => return Some(out),
            Target::Always(kind) => kind,
            Target::By(field, there, not) => {
                if of[field].is_null() {
                    not
                } else {
                    there
                }
            }
        };
        out["target"]["type"] = json!(kind);
        Some(out)
    }
}

/// A structure whose fields, as far as they are there, stand in this order.
fn structure(value: &Value, order: &[&'static str]) -> String {
    let given = order.iter().filter(|name| value.get(**name).is_some_and(|value| !value.is_null()));
    in_order(given.map(|name| (*name, as_go(&value[*name]))))
}

fn selector(value: &Value) -> String {
    let given = ["matchLabels", "matchExpressions"].into_iter().filter(|name| !value[*name].is_null());
    in_order(given.map(|name| match &value[name] {
        Value::Array(expressions) => {
            let all = expressions.iter().map(|one| structure(one, &["key", "operator", "values"]));
            (name, list_of(all))
        }
        other => (name, as_go(other)),
    }))
}
