//! Query options of log, exec, attach and port-forward: checked, and told in the kubelet's words. Pure.

use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::{Value, json};
use url::form_urlencoded;

/// Decoded names and values, in order.
pub type Pairs = Vec<(String, String)>;

/// The decoded pairs of a query.
pub fn pairs(query: &str) -> Pairs {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// The first value of `name`; empty when absent.
pub fn first<'a>(pairs: &'a Pairs, name: &str) -> &'a str {
    pairs.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// A boolean as the API reads it: there, and neither `false` nor `0`.
fn flag(pairs: &Pairs, name: &str) -> bool {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .is_some_and(|(_, value)| value != "0" && !value.eq_ignore_ascii_case("false"))
}

/// A path with its query, encoded.
pub fn path_and_query(path: &str, query: &Pairs) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish())
}

/// Valid options of a log request.
#[derive(Debug, PartialEq, Eq)]
pub struct Log {
    /// Empty for the pod's default.
    pub container: String,
    /// For the kubelet.
    pub query: Pairs,
}

/// The options of `pods/NAME/log`.
///
/// # Errors
/// 400 for text that is no number or time, 422 for values out of range.
pub fn log(pod: &str, query: &str) -> Result<Log, Status> {
    let asked = pairs(query);
    let mut faults = Vec::new();
    let mut told: Pairs = Vec::new();
    for name in ["follow", "previous", "timestamps", "insecureSkipTLSVerifyBackend"] {
        if flag(&asked, name) {
            told.push((name.to_owned(), "true".to_owned()));
        }
    }
    let mut number = |name: &str, least: i64, why: &str| -> Result<bool, Status> {
        let text = first(&asked, name);
        if text.is_empty() {
            return Ok(false);
        }
        let value: i64 = text.parse().map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?;
        if value < least {
            faults.push(FieldError::invalid(name, &json!(value), why));
        }
        told.push((name.to_owned(), value.to_string()));
        Ok(true)
    };
    number("tailLines", 0, "must be greater than or equal to 0")?;
    number("limitBytes", 1, "must be greater than 0")?;
    let since_seconds = number("sinceSeconds", 1, "must be greater than 0")?;
    let since = first(&asked, "sinceTime");
    if !since.is_empty() {
        if since.parse::<jiff::Timestamp>().is_err() {
            let text = format!(
                "parsing time {since:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {since:?} as \"2006\""
            );
            return Err(Status::bad_request(text));
        }
        if since_seconds {
            faults.push(FieldError::forbidden(
                "[]",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        told.push(("sinceTime".to_owned(), since.to_owned()));
    }
    // A feature that is off in this version.
    if !first(&asked, "stream").is_empty() {
        faults.push(FieldError::forbidden("stream", "may not be specified"));
    }
    if faults.is_empty() {
        return Ok(Log { container: first(&asked, "container").to_owned(), query: told });
    }
    Err(Status::invalid(&GroupResource::new("", "PodLogOptions"), pod, &faults))
}

/// exec's and attach's streams and command, as the kubelet names them.
pub fn exec(asked: &Pairs) -> Pairs {
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let streams = streams
        .iter()
        .filter(|(api, _)| flag(asked, api))
        .map(|(_, own)| ((*own).to_owned(), "1".to_owned()));
    streams.chain(asked.iter().filter(|(name, _)| name == "command").cloned()).collect()
}

/// port-forward's ports, which WebSocket clients name in the query.
pub fn port_forward(asked: &Pairs) -> Pairs {
    let ports = asked.iter().filter(|(name, _)| name == "ports");
    ports.map(|(_, port)| ("port".to_owned(), port.clone())).collect()
}

/// The options of a request that connects to `resource/subresource`, as admission sees them.
pub fn connected(resource: &str, subresource: &str, asked: &Pairs, path: &str) -> Value {
    let kind = match (resource, subresource) {
        (_, "exec") => "PodExecOptions",
        (_, "attach") => "PodAttachOptions",
        (_, "portforward") => "PodPortForwardOptions",
        ("nodes", _) => "NodeProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "PodProxyOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    let all = |name: &str| {
        let named = asked.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    match subresource {
        "proxy" if !path.is_empty() => options["path"] = json!(path),
        "portforward" => {
            let ports = all("ports").into_iter().flat_map(|text| text.split(','));
            let ports: Vec<i32> = ports.filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                options["ports"] = json!(ports);
            }
        }
        "exec" | "attach" => {
            for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| flag(asked, name)) {
                options[name] = json!(true);
            }
            if !first(asked, "container").is_empty() {
                options["container"] = json!(first(asked, "container"));
            }
            if subresource == "exec" {
                let command = all("command");
                options["command"] = if command.is_empty() { Value::Null } else { json!(command) };
            }
        }
        _ => {}
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_sees_options_as_objects_of_their_kinds() {
        let rows = [
            (
                ("pods", "exec"),
                "command=a&command=b&stdout=true&tty=0&container=c",
                json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": ["a", "b"], "stdout": true, "container": "c"}),
            ),
            (("pods", "exec"), "", json!({"kind": "PodExecOptions", "apiVersion": "v1", "command": null})),
            (
                ("pods", "attach"),
                "stdin=1&command=x",
                json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true}),
            ),
            (
                ("pods", "portforward"),
                "ports=1,2&ports=3",
                json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [1, 2, 3]}),
            ),
            (
                ("services", "proxy"),
                "x=y",
                json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "/p"}),
            ),
        ];
        for ((resource, subresource), query, want) in rows {
            assert_eq!(connected(resource, subresource, &pairs(query), "/p"), want);
        }
    }

    #[test]
    fn log_options_are_checked_and_passed_on() {
        let cases = [
            ("", Ok("")),
            ("follow=true&container=c&tailLines=5&previous=false", Ok("follow=true&tailLines=5")),
            (
                "timestamps=true&sinceSeconds=10&limitBytes=3",
                Ok("timestamps=true&limitBytes=3&sinceSeconds=10"),
            ),
            ("sinceTime=2024-01-01T00:00:00Z", Ok("sinceTime=2024-01-01T00%3A00%3A00Z")),
            (
                "tailLines=-1",
                Err(
                    r#"PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"#,
                ),
            ),
            (
                "limitBytes=0&sinceSeconds=0",
                Err(
                    r#"PodLogOptions "p" is invalid: [limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0]"#,
                ),
            ),
            (
                "stream=Stdout",
                Err(r#"PodLogOptions "p" is invalid: stream: Forbidden: may not be specified"#),
            ),
            (
                "sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z",
                Err(
                    r#"PodLogOptions "p" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"#,
                ),
            ),
            ("tailLines=x", Err(r#"strconv.ParseInt: parsing "x": invalid syntax"#)),
        ];
        for (query, want) in cases {
            let got = log("p", query)
                .map(|options| path_and_query("", &options.query))
                .map_err(|status| status.message);
            assert_eq!(
                got.as_deref().map(|text| text.trim_start_matches('?')).map_err(String::as_str),
                want,
                "{query}"
            );
        }
    }

    #[test]
    fn exec_options_are_told_in_the_kubelets_words() {
        let asked = pairs(
            "container=c&stdin=true&stdout=1&stderr=false&tty&command=sh&command=-c&command=echo+a%26b",
        );
        assert_eq!(
            path_and_query("/exec/a/p/c", &exec(&asked)),
            "/exec/a/p/c?input=1&output=1&tty=1&command=sh&command=-c&command=echo+a%26b"
        );
        assert_eq!(
            path_and_query("/portForward/a/p", &port_forward(&pairs("ports=80&ports=81"))),
            "/portForward/a/p?port=80&port=81"
        );
    }
}
