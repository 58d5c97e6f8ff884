//! What can be done at a path, told as OpenAPI 3 and 2 tell it.

use super::parameters::{Parameter, shared_reference};
use serde_json::{Map, Value, json};

/// How version 2 calls the bodies that it shares, by their definition.
const SHARED_BODIES: [(&str, &str); 2] = [
    ("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "body-2Y1dVQaQ"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "body-78PwaGsr"),
];

/// What is sent or answered.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// An object of this definition.
    Object(String),
    Text,
}

impl Content {
    fn schema(&self, root: &str) -> Value {
        match self {
            Self::Object(name) => json!({"$ref": format!("{root}{name}")}),
            Self::Text => json!({"type": "string"}),
        }
    }
}

/// The body of a request.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub definition: String,
    pub required: bool,
}

/// What a method does at a path.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub method: &'static str,
    pub id: String,
    pub tag: String,
    pub description: String,
    /// Action and group version kind, of resources.
    pub resource: Option<(&'static str, Value)>,
    pub parameters: Vec<Parameter>,
    pub consumes: &'static [&'static str],
    pub produces: &'static [&'static str],
    pub body: Option<Body>,
    pub answer: Content,
    /// The codes of success.
    pub codes: &'static [u16],
}

/// A path with its operations.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub path: String,
    pub operations: Vec<Operation>,
}

fn reason(code: u16) -> &'static str {
    match code {
        201 => "Created",
        202 => "Accepted",
        401 => "Unauthorized",
        _ => "OK",
    }
}

impl Operation {
    /// The definitions that it names.
    pub fn definitions(&self) -> impl Iterator<Item = &str> {
        let answer = match &self.answer {
            Content::Object(name) => Some(name.as_str()),
            Content::Text => None,
        };
        answer.into_iter().chain(self.body.iter().map(|body| body.definition.as_str()))
    }

    fn common(&self) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("tags".to_owned(), json!([self.tag]));
        told.insert("description".to_owned(), json!(self.description));
        told.insert("operationId".to_owned(), json!(self.id));
        if let Some((action, kind)) = &self.resource {
            told.insert("x-kubernetes-action".to_owned(), json!(action));
            told.insert("x-kubernetes-group-version-kind".to_owned(), kind.clone());
        }
        told
    }

    fn responses(&self, with: impl Fn(Value) -> Value) -> Value {
        let mut told = Map::new();
        for code in self.codes {
            told.insert(code.to_string(), with(json!({"description": reason(*code)})));
        }
        told.insert("401".to_owned(), json!({"description": reason(401)}));
        Value::Object(told)
    }

    fn v3(&self) -> Map<String, Value> {
        let content = |media: &[&str], of: &Content| -> Value {
            let schema = of.schema("#/components/schemas/");
            media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect()
        };
        let mut told = self.common();
        if let Some(body) = &self.body {
            let mut sent =
                json!({"content": content(self.consumes, &Content::Object(body.definition.clone()))});
            if body.required {
                sent["required"] = json!(true);
            }
            told.insert("requestBody".to_owned(), sent);
        }
        let answered = content(self.produces, &self.answer);
        let responses = self.responses(|mut response| {
            response["content"] = answered.clone();
            response
        });
        told.insert("responses".to_owned(), responses);
        told
    }

    fn v2(&self) -> Map<String, Value> {
        let mut told = self.common();
        if !self.consumes.is_empty() {
            told.insert("consumes".to_owned(), json!(self.consumes));
        }
        told.insert("produces".to_owned(), json!(self.produces));
        told.insert("schemes".to_owned(), json!(["https"]));
        let responses = self.responses(|mut response| {
            response["schema"] = self.answer.schema("#/definitions/");
            response
        });
        told.insert("responses".to_owned(), responses);
        told
    }

    fn v2_body(&self) -> Option<Value> {
        let body = self.body.as_ref()?;
        let shared = SHARED_BODIES.iter().find(|(definition, _)| *definition == body.definition);
        Some(shared.map_or_else(|| v2_body(body), |(_, name)| shared_reference(name)))
    }
}

fn v2_body(body: &Body) -> Value {
    let mut told = json!({"name": "body", "in": "body",
        "schema": Content::Object(body.definition.clone()).schema("#/definitions/")});
    if body.required {
        told["required"] = json!(true);
    }
    told
}

/// The bodies that version 2 shares: names and parameters.
pub(super) fn shared_bodies() -> impl Iterator<Item = (String, Value)> {
    let bodies = SHARED_BODIES.into_iter();
    bodies.map(|(definition, name)| {
        // Who deletes may say nothing.
        let body =
            Body { definition: definition.to_owned(), required: !definition.ends_with("DeleteOptions") };
        (name.to_owned(), v2_body(&body))
    })
}

/// What version 2 says of the body, and every parameter with its name, in order.
fn ordered(operation: &Operation, of: impl Fn(&Parameter) -> Value, body: Option<Value>) -> Vec<Value> {
    let mut all: Vec<(String, &str, Value)> = operation
        .parameters
        .iter()
        .map(|parameter| (parameter.name.clone(), parameter.place, of(parameter)))
        .collect();
    all.extend(body.map(|body| ("body".to_owned(), "body", body)));
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all.into_iter().map(|(_, _, told)| told).collect()
}

impl Path {
    /// As version 3 has it.
    pub fn v3(&self) -> Value {
        self.item(|operation| (operation.v3(), ordered(operation, Parameter::v3, None)))
    }

    /// As version 2 has it.
    pub fn v2(&self) -> Value {
        self.item(|operation| (operation.v2(), ordered(operation, Parameter::v2, operation.v2_body())))
    }

    /// What all operations take is said once, for the path.
    fn item(&self, with: impl Fn(&Operation) -> (Map<String, Value>, Vec<Value>)) -> Value {
        let told: Vec<_> = self.operations.iter().map(with).collect();
        // Bodies stay with what is done with them.
        let everywhere = |parameter: &Value| {
            parameter["in"] != "body" && told.iter().all(|(_, own)| own.contains(parameter))
        };
        let mut item = Map::new();
        let first = told.first().map(|(_, own)| own.clone()).unwrap_or_default();
        let common: Vec<Value> = first.into_iter().filter(everywhere).collect();
        for (operation, (mut rest, own)) in self.operations.iter().zip(told.iter().cloned()) {
            let own: Vec<Value> = own.into_iter().filter(|parameter| !common.contains(parameter)).collect();
            if !own.is_empty() {
                rest.insert("parameters".to_owned(), Value::Array(own));
            }
            item.insert(operation.method.to_owned(), Value::Object(rest));
        }
        if !common.is_empty() {
            item.insert("parameters".to_owned(), Value::Array(common));
        }
        Value::Object(item)
    }
}
