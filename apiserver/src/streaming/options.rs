//! Query options of log, exec, attach and port-forward: checked, and told in the kubelet's words. Pure.

use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::json;
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

#[cfg(test)]
mod tests {
    use super::*;

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
