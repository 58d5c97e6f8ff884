//! `Event` (audit.k8s.io/v1), in the order of fields that Kubernetes writes.

use super::Sender;
use super::policy::{Level, Stage};
use crate::request::{RequestInfo, UserInfo};
use coracle_api::meta;
use coracle_api::status::Status;
use coracle_daemon::clock;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const AGENT_MAX: usize = 1024;

/// How events are written (`--audit-log-format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// The whole event.
    #[default]
    Json,
    /// What was noted before there were policies, for those who search in that.
    Legacy,
}

impl Form {
    /// An event's line, without its end.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn line(self, event: &Event) -> serde_json::Result<Vec<u8>> {
        match self {
            Self::Json => serde_json::to_vec(event),
            Self::Legacy => Ok(event.legacy().into_bytes()),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    uri: String,
    verb: String,
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Value>,
    request_received_timestamp: String,
    pub(super) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        let UserInfo { name, uid, groups, extra } = user.clone();
        Self { username: name, uid, groups, extra }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl Event {
    pub fn new(level: Level, from: &Sender<'_>, user: Option<&UserInfo>, info: &RequestInfo) -> Self {
        let mut user_agent = from.agent.clone();
        if user_agent.len() > AGENT_MAX {
            user_agent = user_agent.chars().take(AGENT_MAX).chain("...TRUNCATED".chars()).collect();
        }
        let object_ref = info.is_resource.then(|| ObjectRef {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectRef::default()
        });
        let now = clock::rfc3339_micros(clock::now());
        Self {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            id: from.id.to_owned(),
            stage: Stage::RequestReceived,
            uri: from.uri.clone(),
            verb: info.verb.clone(),
            user: user.map(User::from).unwrap_or_default(),
            impersonated_user: None,
            addresses: from.addresses.clone(),
            user_agent,
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        }
    }

    /// As an item of a list.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn listed(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Self { kind: "", api_version: "", ..self.clone() })
    }

    /// Bytes of the whole event.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn size(&self) -> serde_json::Result<usize> {
        // A line's end counts.
        serde_json::to_vec(self).map(|line| line.len() + 1)
    }

    /// The event without bodies; `None` for one that has none at its level.
    pub fn truncated(&self) -> Option<Self> {
        if self.level < Level::Request {
            return None;
        }
        let mut cut = Self { request_object: None, response_object: None, ..self.clone() };
        cut.annotations.insert("audit.k8s.io/truncated".to_owned(), "true".to_owned());
        Some(cut)
    }

    fn legacy(&self) -> String {
        let quoted = |groups: &[String]| {
            let groups: Vec<String> = groups.iter().map(|group| format!("{group:?}")).collect();
            groups.join(",")
        };
        let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise } else { text }.to_owned();
        let own = match &self.user {
            User { username, groups, .. } if !username.is_empty() && !groups.is_empty() => quoted(groups),
            _ => "<none>".to_owned(),
        };
        let (other, others) = match &self.impersonated_user {
            None => ("<self>", "<lookup>".to_owned()),
            Some(user) if user.groups.is_empty() => (user.username.as_str(), "<lookup>".to_owned()),
            Some(user) => (user.username.as_str(), quoted(&user.groups)),
        };
        let namespace = self.object_ref.as_ref().map_or("", |to| to.namespace.as_str());
        let answer = self.response_status.as_ref();
        let answer =
            answer.map_or("<deferred>".to_owned(), |told| told["code"].as_u64().unwrap_or(0).to_string());
        format!(
            "{} AUDIT: id={:?} stage=\"{:?}\" ip={:?} method={:?} user={:?} groups={own:?} as={other:?} asgroups={others:?} user-agent={:?} namespace={:?} uri={:?} response={answer:?}",
            self.request_received_timestamp,
            self.id,
            self.stage,
            or(self.addresses.first().map_or("", String::as_str), "<unknown>"),
            self.verb,
            or(&self.user.username, "<none>"),
            self.user_agent,
            or(namespace, "<none>"),
            self.uri,
        )
    }

    pub fn code(&mut self, code: u16) {
        let status = self.response_status.get_or_insert_with(|| json!({"metadata": {}}));
        status["code"] = json!(code);
    }

    /// How it failed.
    pub fn failed(&mut self, status: &Status, level: Level) {
        self.ended(&status.to_value());
        if level >= Level::RequestResponse {
            self.response_object = Some(status.to_value());
        }
    }

    /// What a Status says that was answered.
    pub fn ended(&mut self, status: &Value) {
        let mut told = status.clone();
        if let Some(told) = told.as_object_mut() {
            told.retain(|key, _| key != "kind" && key != "apiVersion");
        }
        self.response_status = Some(told);
    }

    /// Names in the reference what the URL does not tell.
    pub fn refer(&mut self, object: &Value) {
        let Some(to) = &mut self.object_ref else { return };
        let fields = [
            (&mut to.namespace, meta::namespace(object)),
            (&mut to.name, meta::name(object)),
            (&mut to.uid, meta::uid(object)),
            (&mut to.resource_version, meta::field(object, "resourceVersion")),
        ];
        for (own, told) in fields {
            if own.is_empty() {
                told.clone_into(own);
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An event of a request to that place, with a body of so many bytes.
    pub fn of(uri: &str, bytes: usize) -> Event {
        let from = Sender { id: "i", uri: uri.to_owned(), agent: String::new(), addresses: Vec::new() };
        let mut event = Event::new(Level::Request, &from, None, &RequestInfo::default());
        event.request_object = (bytes > 0).then(|| json!("x".repeat(bytes)));
        event
    }

    #[test]
    fn a_legacy_line_tells_who_asked_as_whom() {
        let from = Sender { id: "i", uri: "/x".to_owned(), agent: "a".to_owned(), addresses: Vec::new() };
        let user = UserInfo {
            name: "jane".to_owned(),
            groups: vec!["g".to_owned(), "h".to_owned()],
            ..UserInfo::default()
        };
        let info = RequestInfo { verb: "get".to_owned(), ..RequestInfo::default() };
        let mut event = Event::new(Level::Metadata, &from, Some(&user), &info);
        let told = |event: &Event| {
            let line = String::from_utf8(Form::Legacy.line(event).expect("a line")).expect("text");
            line.split_once(" AUDIT: ").expect("a time").1.to_owned()
        };
        let want = |user: &str, answer: &str| {
            format!(
                "id=\"i\" stage=\"RequestReceived\" ip=\"<unknown>\" method=\"get\" {user} user-agent=\"a\" namespace=\"<none>\" uri=\"/x\" response=\"{answer}\""
            )
        };
        let groups = r#"user="jane" groups="\"g\",\"h\"""#;
        assert_eq!(told(&event), want(&format!(r#"{groups} as="<self>" asgroups="<lookup>""#), "<deferred>"));
        event.impersonated_user = Some(User { username: "joe".to_owned(), ..User::default() });
        event.code(200);
        assert_eq!(told(&event), want(&format!(r#"{groups} as="joe" asgroups="<lookup>""#), "200"));
        let nobody = Event::new(Level::Metadata, &from, None, &info);
        let none = r#"user="<none>" groups="<none>" as="<self>" asgroups="<lookup>""#;
        assert_eq!(told(&nobody), want(none, "<deferred>"));
    }
}
