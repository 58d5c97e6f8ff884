//! One call of a webhook: found by URL or Service, over TLS by its own CA, bounded in time and size.

use crate::outbound;
use crate::outbound::credentials::Credentials;
use crate::reader::Reader;
use axum::body::Body;
use coracle_api::decode;
use coracle_daemon::{Tasks, clock};
use http::Request;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The longest answer that is read.
pub const ANSWER_MAX: usize = 8 << 20;
const SECONDS: u64 = 10;

/// Connects to webhooks.
pub struct Dialler {
    /// Who this server is to them.
    credentials: Arc<Credentials>,
    relay: outbound::Relay,
}

impl Dialler {
    /// With an owner for connections.
    pub fn new(tasks: Tasks) -> Self {
        Self::with(tasks, Arc::default())
    }

    /// That shows webhooks who it is.
    pub fn with(tasks: Tasks, credentials: Arc<Credentials>) -> Self {
        Self { credentials, relay: outbound::Relay::new(tasks) }
    }

    /// Sends the question and reads the answer.
    ///
    /// # Errors
    /// Why there is none, in Go's words.
    pub async fn call(&self, reader: &dyn Reader, hook: &Value, question: &Value) -> Result<Value, String> {
        let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(SECONDS);
        let client = &hook["clientConfig"];
        let url = url(client, seconds)?;
        // Go shows a Service's port even where it is the usual one.
        let shown = if client["service"].is_object() && url.port().is_none() {
            url.as_str().replacen(".svc/", ".svc:443/", 1)
        } else {
            url.to_string()
        };
        let posted = format!("Post {shown:?}");
        let work = self.exchange(reader, client, &url, question);
        match clock::timeout(Duration::from_secs(seconds), work).await {
            Ok(answer) => answer.map_err(|fault| match fault {
                Fault::Dial(text) => format!("{posted}: {text}"),
                Fault::Answer(text) => text,
            }),
            Err(_) => Err(format!("{posted}: context deadline exceeded")),
        }
    }

    async fn exchange(
        &self,
        reader: &dyn Reader,
        client: &Value,
        url: &Url,
        question: &Value,
    ) -> Result<Value, Fault> {
        let authority = outbound::bundle(&client["caBundle"]).map_err(Fault::Dial)?;
        let port = url.port_or_known_default().unwrap_or(443);
        let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let user = self.credentials.of(&format!("{name}:{port}"));
        let tls = user.trust.config(authority.as_deref()).map_err(Fault::Dial)?;
        let service = &client["service"];
        let (host, at) = if service.is_object() {
            let text = |key: &str| service[key].as_str().unwrap_or_default();
            outbound::service(reader, text("namespace"), text("name"), port).map_err(Fault::Dial)?
        } else {
            (name.clone(), port)
        };
        let destination = outbound::Destination { host, port: at, tls: Some(tls), name: Some(name) };
        let body = Body::from(question.to_string());
        let mut request = Request::post("/")
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", "kube-apiserver-admission");
        if let Some(authorization) = user.authorization().map_err(Fault::Dial)? {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).map_err(|error| Fault::Dial(error.to_string()))?;
        let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let response = self
            .relay
            .send(&destination, request, &path)
            .await
            .map_err(|error| Fault::Dial(outbound::told(&error)))?;
        let code = response.status();
        let media = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().to_owned();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| Fault::Answer(error.to_string()))?.to_bytes();
        said(code.as_u16(), &media, &body).map_err(Fault::Answer)
    }
}

/// What an answer's bytes say, read as Go's client reads them.
fn said(code: u16, media: &str, body: &[u8]) -> Result<Value, String> {
    if !(200..300).contains(&code) {
        return Err(refused(code, media, body));
    }
    if body.is_empty() {
        return Err(format!("0-length response with status code: {code} and content type: {media}"));
    }
    let untyped = |fault: String| format!("couldn't get version/kind; json parse error: {fault}");
    // What does not begin as JSON may be YAML.
    let value = match decode::document_of_json(body) {
        Err(_) if !body.trim_ascii_start().starts_with(b"{") => decode::any(body).map_err(untyped)?,
        read => read.map_err(untyped)?,
    };
    if value.is_object() || value.is_null() {
        return Ok(value);
    }
    let found = decode::found(&value);
    Err(untyped(format!(
        "json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )))
}

/// The error of an answer that is no success: its own Status, or what its code means.
fn refused(code: u16, media: &str, body: &[u8]) -> String {
    let status = decode::document_of_json(body).unwrap_or_default();
    if status["kind"] == "Status" && status["apiVersion"] == "v1" {
        return status["message"].as_str().unwrap_or("unknown").to_owned();
    }
    let is_text = media.is_empty() || media.starts_with("text/");
    let text = if is_text {
        String::from_utf8_lossy(&body[..body.len().min(2048)]).trim().to_owned()
    } else {
        "unknown".to_owned()
    };
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => text,
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        500.. => format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

enum Fault {
    /// No answer.
    Dial(String),
    /// An answer that is of no use.
    Answer(String),
}

/// Where a webhook is called: a Service is known by its name in the cluster.
fn url(client: &Value, seconds: u64) -> Result<Url, String> {
    let service = &client["service"];
    let text = if service.is_object() {
        let part = |key: &str| service[key].as_str().unwrap_or_default();
        let port = service["port"].as_u64().unwrap_or(443);
        let path = part("path").trim_start_matches('/');
        format!("https://{}.{}.svc:{port}/{path}", part("name"), part("namespace"))
    } else {
        client["url"].as_str().unwrap_or_default().to_owned()
    };
    let mut url = Url::parse(&text).map_err(|error| format!("Unparsable webhook URL: {error}"))?;
    if url.scheme() != "https" || url.host_str().is_none() {
        return Err("webhook URL must be https and have a host".to_owned());
    }
    url.set_query(Some(&format!("timeout={seconds}s")));
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_gos_client_reads_them() {
        let status = r#"{"kind":"Status","apiVersion":"v1","message":"so"}"#;
        let rows = [
            (
                200,
                "application/json",
                "",
                "0-length response with status code: 200 and content type: application/json",
            ),
            (200, "", "{", "couldn't get version/kind; json parse error: unexpected end of JSON input"),
            (
                500,
                "application/json",
                "boom",
                "an error on the server (\"unknown\") has prevented the request from succeeding",
            ),
            (
                500,
                "text/plain",
                "boom ",
                "an error on the server (\"boom\") has prevented the request from succeeding",
            ),
            (400, "application/json", status, "so"),
            (400, "application/json", "{}", "the server rejected our request for an unknown reason"),
            (
                302,
                "",
                "",
                "the server responded with the status code 302 but did not return more information",
            ),
        ];
        for (code, media, body, want) in rows {
            assert_eq!(said(code, media, body.as_bytes()).expect_err(want), want);
        }
        for (body, found) in [("[]", "array"), ("text", "string")] {
            let told = said(200, "", body.as_bytes()).expect_err(body);
            assert!(
                told.contains(&format!("json: cannot unmarshal {found} into Go value of type struct")),
                "{told}"
            );
        }
    }
}
