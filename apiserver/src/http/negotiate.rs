//! `Accept` in, the answer's format out.

use super::request_info::Pairs;
use crate::storage::encode::{Format, Include, Media, MetaVersion, Shape};
use coracle_api::kinds::Kind;
use coracle_api::status::Status;

/// What objects are sent as.
pub const TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// Whether a route that produces `types` is one for this client, as routes are chosen: by media types alone.
///
/// # Errors
/// 406, in the words of the router.
pub fn produces(accept: &str, types: &[&str]) -> Result<(), Status> {
    let mut wanted = accept.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    if accept.trim().is_empty() || wanted.any(|media| media == "*/*" || types.contains(&media)) {
        return Ok(());
    }
    let text = format!("406: Not Acceptable\n\nAvailable representations: {}", types.join(", "));
    let mut status = Status::new(406, "NotAcceptable", text);
    status.details = serde_json::json!({});
    Err(status)
}

/// One clause of an `Accept` header.
#[derive(Clone, Debug, Default)]
pub struct Clause {
    /// `application/json`, `*/*` …
    pub media: String,
    /// `as`, `g`, `v`, `q` …, in order.
    pub parameters: Vec<(String, String)>,
}

impl Clause {
    /// A parameter; empty when absent.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of a header, the most wanted first.
#[must_use]
pub fn clauses(accept: &str) -> Vec<Clause> {
    let mut clauses: Vec<(f32, Clause)> = Vec::new();
    for text in accept.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
            .collect();
        let clause = Clause { media, parameters };
        let quality: f32 = clause.get("q").parse().unwrap_or(1.0);
        if quality > 0.0 {
            clauses.push((quality, clause));
        }
    }
    // Stable: what stands first wins among equals.
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().map(|(_, clause)| clause).collect()
}

/// What an answer is of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'k> {
    /// A list or a watch.
    pub lists: bool,
    /// A watch.
    pub watches: bool,
    /// The kind of the objects; without one there is no Table, and no metadata.
    pub kind: Option<&'k Kind>,
    /// What is kept nowhere, of which there is neither.
    pub only_answer: bool,
}

impl Asked<'_> {
    /// Why metadata asked for as `form` cannot be had: what is sent is a list, or is none.
    fn misfit(self, form: &str) -> Option<Status> {
        let (kind, lists) = (self.kind?, form == "PartialObjectMetadataList");
        if self.watches || lists == self.lists {
            return None;
        }
        let name = if self.lists { kind.list_kind() } else { kind.kind.clone() };
        let package = match kind.group.as_str() {
            "" | "events.k8s.io" => "core",
            group => group.split('.').next().unwrap_or_default(),
        };
        let object = match kind.custom {
            Some(_) => "*unstructured.UnstructuredList".to_owned(),
            None => format!("*{package}.{name}"),
        };
        let is = if lists { "is not a list" } else { "is a list" };
        let told = format!("you requested {form}, but the requested object {is} ({object})");
        Some(Status::new(406, "NotAcceptable", told))
    }
}

/// The format of an answer to a request for a resource; custom kinds have no protobuf.
///
/// # Errors
/// 406 when nothing that is accepted can be made, 400 for a wrong `includeObject`.
pub fn format(accept: &str, query: &Pairs, user_agent: &str, asked_for: Asked<'_>) -> Result<Format, Status> {
    let Asked { lists, watches, kind, only_answer } = asked_for;
    let custom = kind.is_some_and(|kind| kind.custom.is_some());
    let asked = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let pretty = match asked("pretty") {
        Some(value) => matches!(value, "" | "true" | "1"),
        None => ["curl", "Wget", "Mozilla/"].iter().any(|program| user_agent.starts_with(program)),
    };
    let include = || match asked("includeObject") {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("Object") => Ok(Include::Object),
        Some("None") => Ok(Include::None),
        Some(other) => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    };
    if kind.is_some() && !custom {
        let also = if lists { STREAMS.as_slice() } else { &[] };
        produces(accept, &[TYPES.as_slice(), also].concat())?;
    }
    let clauses = clauses(accept);
    if clauses.is_empty() {
        return Ok(Format { pretty, ..Format::JSON });
    }
    let mut could_be_read = false;
    for clause in &clauses {
        let media = match clause.media.as_str() {
            "application/json" | "*/*" | "application/*" => Media::Json,
            "application/yaml" if watches => {
                could_be_read = true;
                continue;
            }
            "application/yaml" => Media::Yaml,
            "application/vnd.kubernetes.protobuf" if !custom || !clause.get("as").is_empty() => {
                Media::Protobuf
            }
            _ => continue,
        };
        let version = MetaVersion::named(clause.get("v")).filter(|_| clause.get("g") == "meta.k8s.io");
        let shape = match clause.get("as") {
            "" => Shape::Whole,
            _ if only_answer || kind.is_none() => continue,
            "Table" if version.is_some() && media != Media::Protobuf => Shape::Table(include()?),
            form @ ("PartialObjectMetadata" | "PartialObjectMetadataList") if version.is_some() => {
                asked_for.misfit(form).map_or(Ok(()), Err)?;
                Shape::Partial
            }
            _ => continue,
        };
        let meta = version.unwrap_or_default();
        return Ok(Format { media, shape, pretty: pretty && media == Media::Json, meta });
    }
    Err(Status::not_acceptable(if could_be_read { &STREAMS } else { &TYPES }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::kinds;

    fn pods(lists: bool, watches: bool) -> Asked<'static> {
        Asked { lists, watches, kind: kinds::by_gvk("v1", "Pod").map(AsRef::as_ref), only_answer: false }
    }

    #[test]
    fn metadata_of_a_list_is_asked_for_as_one() {
        let of = |form: &str| format!("application/json;as={form};v=v1;g=meta.k8s.io");
        let rows = [
            ("PartialObjectMetadata", false, None),
            ("PartialObjectMetadataList", true, None),
            ("PartialObjectMetadata", true, Some("is a list (*core.PodList)")),
            ("PartialObjectMetadataList", false, Some("is not a list (*core.Pod)")),
        ];
        for (form, lists, want) in rows {
            let told = super::format(&of(form), &Vec::new(), "", pods(lists, false)).err();
            let want = want.map(|want| format!("you requested {form}, but the requested object {want}"));
            assert_eq!(told.map(|status| status.message), want);
        }
    }

    #[test]
    fn the_most_wanted_format_that_can_be_made_is_taken() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let rows = [
            ("", Media::Json, Shape::Whole),
            ("*/*", Media::Json, Shape::Whole),
            (table, Media::Json, Shape::Table(Include::Metadata)),
            ("application/vnd.kubernetes.protobuf,application/json", Media::Protobuf, Shape::Whole),
            ("application/json;q=0.5, application/yaml", Media::Yaml, Shape::Whole),
            (
                "application/xml, application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Media::Json,
                Shape::Partial,
            ),
        ];
        for (accept, media, shape) in rows {
            let got = format(accept, &Vec::new(), "kubectl", pods(true, false)).expect(accept);
            assert_eq!((got.media, got.shape), (media, shape), "{accept}");
        }
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        let got = format(old, &Vec::new(), "", pods(true, false)).expect("the old version");
        assert_eq!((got.shape, got.meta), (Shape::Table(Include::Metadata), MetaVersion::V1Beta1));
        let eviction = Asked { only_answer: true, ..pods(false, false) };
        assert_eq!(format(old, &Vec::new(), "", eviction).expect_err("kept nowhere").code, 406);
        assert_eq!(format("text/html", &Vec::new(), "", pods(false, false)).expect_err("html").code, 406);
        let none = Asked::default();
        assert_eq!(format("application/json;as=Table", &Vec::new(), "", none).expect_err("as").code, 406);
    }

    #[test]
    fn what_a_watch_cannot_be_is_told_apart_from_what_nothing_can_be() {
        let asked = Asked { watches: true, ..Asked::default() };
        for (accept, told) in [("application/yaml", "stream=watch"), ("text/html", "application/yaml")] {
            let refused = format(accept, &Vec::new(), "", asked).expect_err(accept);
            assert!(refused.message.contains(told), "{accept}: {}", refused.message);
        }
    }
}
