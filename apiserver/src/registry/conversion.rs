//! Conversion webhooks: objects of custom kinds in the version that a request speaks, and back in that of the store.
//!
//!     question ─► webhook ─► answer ─► checks ─► objects whose metadata is their own, but for labels and annotations
//!
//! In: objects of one kind, and the version wanted. Out: the same in that version, or a 500 in Kubernetes' words.
//! Invariants: what is in that version already is never sent; many objects travel in one question.

use super::{Registry, convert};
use crate::admission::{ANSWER_MAX, Dialler, of_kind};
use crate::reader::Reader;
use crate::storage::entry::{self, Entry};
use coracle_api::kinds::Kind;
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::{Tasks, random};
use serde_json::{Value, json};
use std::sync::Arc;

const REVIEW: &str = "apiextensions.k8s.io/v1";
/// What else of metadata a webhook may change.
const CHANGEABLE: [&str; 2] = ["labels", "annotations"];
/// The longest that a webhook may take.
const SECONDS: u64 = 30;
/// Objects in one question at most, and their bytes: the answer, which may be longer, must still be read.
const AT_ONCE: usize = 10_000;
const BYTES_AT_ONCE: usize = ANSWER_MAX / 2;

/// Calls conversion webhooks.
pub struct Conversion {
    dialler: Dialler,
    reader: Arc<dyn Reader>,
}

/// The objects in the answer to a question.
fn answered(answer: &Value, uid: &str) -> Result<Vec<Value>, String> {
    of_kind(answer, "apiextensions.k8s.io", "v1", "ConversionReview")?;
    let told = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (told(&answer["apiVersion"]), told(&answer["kind"]));
    if version != REVIEW || kind != "ConversionReview" {
        let version = if version.contains('/') { version } else { format!("/{version}") };
        return Err(format!(
            "expected webhook response of {REVIEW}, Kind=ConversionReview, got {version}, Kind={kind}"
        ));
    }
    let response = &answer["response"];
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", told(&response["uid"])));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        let message = told(&result["message"]);
        let status = told(&result["status"]);
        let plain = format!("response.result.status was '{status}', not 'Success'");
        return Err(if message.is_empty() { plain } else { message });
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// A converted object with its own metadata again, if it is what was asked for. Faults are told as they follow on "object".
fn restored(before: &Value, after: Value, wanted: &str) -> Result<Value, String> {
    let mut after = after;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&after["apiVersion"]);
    if version != wanted {
        return Err(format!(" at index 0: invalid groupVersion (expected {wanted}, received {version})"));
    }
    if before["kind"] != after["kind"] {
        return Err(format!(
            " at index 0: invalid kind (expected {}, received {})",
            text(&before["kind"]),
            text(&after["kind"])
        ));
    }
    if !after["metadata"].is_object() {
        return Err(": missing metadata in converted object".to_owned());
    }
    let same = |key: &str, name: &str| {
        let (own, other) = (meta::field(before, key), meta::field(&after, key));
        if own == other { Ok(()) } else { Err(format!(": must have the same {name}: {own} != {other}")) }
    };
    same("name", "name")?;
    same("namespace", "namespace")?;
    same("uid", "UID")?;
    let mut metadata = before["metadata"].clone();
    for key in CHANGEABLE {
        let changed = after["metadata"][key].take();
        let fits =
            changed.is_null() || changed.as_object().is_some_and(|map| map.values().all(Value::is_string));
        if !fits {
            return Err(format!(": invalid metadata.{key} in converted object"));
        }
        if let Some(own) = metadata.as_object_mut() {
            own.remove(key);
            if changed.as_object().is_some_and(|map| !map.is_empty()) {
                own.insert(key.to_owned(), changed);
            }
        }
    }
    after["metadata"] = metadata;
    Ok(after)
}

/// How many objects go into each question, in their order.
fn batches(sizes: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut counts, mut bytes): (Vec<usize>, usize) = (Vec::new(), 0);
    for size in sizes {
        match counts.last_mut() {
            Some(count) if *count < AT_ONCE && bytes + size <= BYTES_AT_ONCE => {
                *count += 1;
                bytes += size;
            }
            _ => {
                counts.push(1);
                bytes = size;
            }
        }
    }
    counts
}

fn failed(of: &str, kind: &str, why: &str) -> Status {
    Status::new(500, "", format!("conversion webhook for {of}, Kind={kind} {why}"))
}

impl Conversion {
    /// With an owner for connections.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, tasks: Tasks) -> Self {
        Self { dialler: Dialler::new(tasks), reader }
    }

    /// Objects of a custom kind in the version `wanted`; those that are in it stay as they are.
    async fn converted(&self, kind: &Kind, objects: Vec<Value>, wanted: &str) -> Result<Vec<Value>, Status> {
        let Some(webhook) = kind.custom.as_ref().and_then(|version| version.conversion()) else {
            return Ok(objects);
        };
        let mut objects = objects;
        let other: Vec<usize> = objects
            .iter()
            .enumerate()
            .filter(|(_, own)| own["apiVersion"] != wanted)
            .map(|(at, _)| at)
            .collect();
        let size = |at: &usize| serde_json::to_vec(&objects[*at]).map_or(0, |bytes| bytes.len());
        let mut left = other.as_slice();
        for count in batches(other.iter().map(size)) {
            let batch;
            (batch, left) = left.split_at(count);
            let sent: Vec<&Value> = batch.iter().map(|at| &objects[*at]).collect();
            let (of, name) = (meta_version(sent[0]), kind.kind.as_str());
            let uid = random::uuid();
            let question = json!({"apiVersion": REVIEW, "kind": "ConversionReview",
                "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": sent}});
            let mut hook = webhook.clone();
            hook["timeoutSeconds"] = json!(SECONDS);
            let answer = self.dialler.call(self.reader.as_ref(), &hook, &question).await;
            let answer = answer.and_then(|answer| answered(&answer, &uid));
            let made = answer.map_err(|why| failed(&of, name, &format!("failed: {why}")))?;
            if made.len() != batch.len() {
                // Upstream asks for each by itself.
                let expected = if made.is_empty() { 1 } else { batch.len() };
                let why = format!("returned {} objects, expected {expected}", made.len());
                return Err(failed(&of, name, &why));
            }
            for (at, after) in batch.iter().zip(made) {
                let own = restored(&objects[*at], after, wanted);
                objects[*at] =
                    own.map_err(|why| failed(&of, name, &format!("returned invalid object{why}")))?;
            }
        }
        Ok(objects)
    }
}

fn meta_version(object: &Value) -> String {
    object["apiVersion"].as_str().unwrap_or_default().to_owned()
}

/// Whether objects of `kind` can need a webhook to be read.
pub(super) fn asks(kind: &Kind) -> bool {
    kind.custom.as_ref().is_some_and(|version| version.conversion().is_some())
}

impl Registry {
    /// Stored objects in the version of `kind`, as far as a webhook makes it.
    pub(super) async fn shown(
        &self,
        kind: &Kind,
        entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        shown(&self.conversion, kind, entries).await
    }

    /// One of them.
    pub(super) async fn shown_one(&self, kind: &Kind, entry: Arc<Entry>) -> Result<Arc<Entry>, Status> {
        let mut all = self.shown(kind, vec![entry.clone()]).await?;
        Ok(all.pop().unwrap_or(entry))
    }

    /// An object of `kind` as it is stored.
    pub(super) async fn to_store(&self, kind: &Kind, mut object: Value) -> Result<Value, Status> {
        // Nothing is kept of where somebody thinks that an object is; a dry run shows it.
        meta::remove(&mut object, "selfLink");
        if !asks(kind) {
            return Ok(convert::from(kind, object));
        }
        let wanted = convert::stored_version(kind);
        let mut all = self.conversion.converted(kind, vec![object], &wanted).await?;
        Ok(convert::from(kind, all.pop().unwrap_or_default()))
    }
}

/// Stored objects in the version of `kind`, as far as a webhook makes it.
///
/// # Errors
/// The webhook fails.
pub(super) async fn shown(
    conversion: &Conversion,
    kind: &Kind,
    entries: Vec<Arc<Entry>>,
) -> Result<Vec<Arc<Entry>>, Status> {
    let wanted = kind.api_version();
    let differs = |entry: &&Arc<Entry>| entry.value()["apiVersion"] != wanted.as_str();
    if !asks(kind) || !entries.iter().any(|entry| differs(&entry)) {
        return Ok(entries);
    }
    let objects = entries.iter().map(|entry| entry.value().as_ref().clone()).collect();
    let objects = conversion.converted(kind, objects, &wanted).await?;
    let made = entries.iter().zip(objects).map(|(own, object)| {
        if !differs(&own) {
            return own.clone();
        }
        let raw = entry::stored(&object).into();
        Arc::new(Entry::new(&own.tail, own.revision, raw).with_value(object))
    });
    Ok(made.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Value);

    fn answer(response: &Value) -> Value {
        json!({"apiVersion": REVIEW, "kind": "ConversionReview", "response": response})
    }

    #[test]
    fn answers_are_read_or_refused_in_kubernetes_words() {
        let good =
            answer(&json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{"a": 1}]}));
        assert_eq!(answered(&good, "u"), Ok(vec![json!({"a": 1})]));
        let rows = [
            (
                json!({"apiVersion": "v1", "kind": "X"}),
                "no kind \"X\" is registered for version \"v1\" in scheme \"pkg/runtime/scheme.go:110\"",
            ),
            (
                json!({}),
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=",
            ),
            (answer(&Value::Null), "no response provided"),
            (answer(&json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (
                answer(&json!({"uid": "u", "result": {"status": "Failed"}})),
                "response.result.status was 'Failed', not 'Success'",
            ),
            (answer(&json!({"uid": "u", "result": {"status": "Failed", "message": "no way"}})), "no way"),
        ];
        for (given, want) in rows {
            assert_eq!(answered(&given, "u"), Err(want.to_owned()), "{given}");
        }
    }

    #[test]
    fn questions_are_bounded_by_their_objects_and_bytes() {
        assert!(batches(std::iter::empty()).is_empty());
        assert_eq!(batches(std::iter::repeat_n(1, AT_ONCE + 1)), [AT_ONCE, 1]);
        assert_eq!(batches([BYTES_AT_ONCE * 2, 1, BYTES_AT_ONCE - 1, 1].into_iter()), [1, 2, 1]);
    }

    #[test]
    fn converted_objects_keep_their_metadata_but_for_labels_and_annotations() {
        let before = json!({"apiVersion": "a.io/v1", "kind": "W", "spec": {"x": 1},
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "5", "labels": {"old": "1"}}});
        let after = |change: fn(&mut Value)| {
            let mut after = json!({"apiVersion": "a.io/v2", "kind": "W", "spec": {"y": 1},
                "metadata": {"name": "a", "uid": "u", "labels": {"new": "1"}, "finalizers": ["evil"]}});
            change(&mut after);
            after
        };
        let made = restored(&before, after(|_| ()), "a.io/v2").expect("restored");
        assert_eq!(
            made,
            json!({"apiVersion": "a.io/v2", "kind": "W", "spec": {"y": 1},
                "metadata": {"name": "a", "uid": "u", "resourceVersion": "5", "labels": {"new": "1"}}})
        );
        let rows: [(Change, &str); 6] = [
            (
                |after| after["apiVersion"] = json!("a.io/v1"),
                " at index 0: invalid groupVersion (expected a.io/v2, received a.io/v1)",
            ),
            (|after| after["kind"] = json!("X"), " at index 0: invalid kind (expected W, received X)"),
            (|after| after["metadata"]["name"] = json!("b"), ": must have the same name: a != b"),
            (|after| after["metadata"]["uid"] = json!("v"), ": must have the same UID: u != v"),
            (|after| after["metadata"] = json!(null), ": missing metadata in converted object"),
            (
                |after| after["metadata"]["labels"] = json!({"a": 1}),
                ": invalid metadata.labels in converted object",
            ),
        ];
        for (change, want) in rows {
            assert_eq!(restored(&before, after(change), "a.io/v2"), Err(want.to_owned()));
        }
    }
}
