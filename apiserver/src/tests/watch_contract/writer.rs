//! Writers of configmaps, some of which they share.

use super::servers::Servers;
use super::{Draws, LAST, MAPS};
use axum::body::Body;
use http::Request;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;

const WRITES: u64 = 120;
const SHARED: u64 = 4;
const OWN: u64 = 3;

/// One write, and how it went.
#[derive(Debug)]
pub struct Outcome {
    /// What no other write says.
    pub says: String,
    /// `None`: the connection broke.
    pub code: Option<u16>,
    /// As acknowledged.
    pub revision: u64,
}

pub struct Writer {
    number: u64,
    draws: Draws,
}

fn map(name: &str, label: u64, says: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"v": label.to_string()}}, "data": {"said": says}})
}

impl Writer {
    pub fn new(number: u64) -> Self {
        Self { number, draws: Draws::of("writer", number) }
    }

    pub async fn run(mut self, servers: Arc<Servers>, done: watch::Sender<u64>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for n in 0..WRITES {
            let says = format!("{}-{n}", self.number);
            let (method, path, kind, body) = self.draw(&says);
            let request = Request::builder().method(method).uri(path).header("content-type", kind);
            let request = request.body(Body::from(body.to_string())).expect("a request");
            let slot = usize::from(self.draws.once_in(2));
            let answer = servers.call(slot, request).await.ok();
            done.send_modify(|done| *done += 1);
            // Nothing is said by a deletion.
            if method != "DELETE" {
                let object: Value = answer
                    .as_ref()
                    .and_then(|(_, bytes)| serde_json::from_slice(bytes).ok())
                    .unwrap_or_default();
                let revision =
                    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
                let code = answer.map(|(code, _)| code);
                outcomes.push(Outcome { says, code, revision: revision.unwrap_or_default() });
            }
        }
        outcomes
    }

    /// Method, path, content type and body of the next write.
    fn draw(&mut self, says: &str) -> (&'static str, String, &'static str, Value) {
        let name = match self.draws.below(3) {
            0 => format!("shared-{}", self.draws.below(SHARED)),
            _ => format!("own-{}-{}", self.number, self.draws.below(OWN)),
        };
        let object = map(&name, self.draws.below(3), says);
        let one = format!("{MAPS}/{name}");
        let json = "application/json";
        match self.draws.below(10) {
            0..3 => ("POST", MAPS.to_owned(), json, object),
            3 | 4 => ("PUT", one, json, object),
            5 => {
                let query = format!("{one}?fieldManager=w{}&force=true", self.number);
                ("PATCH", query, "application/apply-patch+yaml", object)
            }
            6 => {
                let add = json!([{"op": "add", "path": "/data/said", "value": says}]);
                ("PATCH", one, "application/json-patch+json", add)
            }
            7 => {
                let change = json!({"data": {"said": says}});
                ("PATCH", one, "application/strategic-merge-patch+json", change)
            }
            8 => {
                let change = json!({"metadata": object["metadata"], "data": object["data"]});
                ("PATCH", one, "application/merge-patch+json", change)
            }
            _ => ("DELETE", one, json, json!({})),
        }
    }
}

/// Writes what all selections take and nothing comes after.
pub async fn put_last(servers: &Servers) {
    loop {
        let request = Request::post(MAPS).header("content-type", "application/json");
        let request = request.body(Body::from(map(LAST, 1, "last").to_string())).expect("a request");
        if let Ok((201 | 409, _)) = servers.call(0, request).await {
            return;
        }
        tokio::task::yield_now().await;
    }
}
