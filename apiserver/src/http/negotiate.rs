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

    /// Whether it wants something else than the object, even if it does not say what.
    fn transforms(&self) -> bool {
        self.parameters.iter().any(|(key, _)| matches!(key.as_str(), "as" | "g" | "v"))
    }
}

/// The media type of a body, as Go reads it: in small letters, without its parameters; what cannot be read stays as it is,
/// which nobody takes. Patches are known by the text itself.
pub fn sent(content_type: &str, patches: bool) -> String {
    let (base, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    if patches {
        return base.trim().to_owned();
    }
    let named = |parameter: &str| {
        parameter.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    let readable =
        parameters.split(';').map(str::trim).all(|parameter| parameter.is_empty() || named(parameter));
    if readable { base.trim().to_ascii_lowercase() } else { content_type.to_owned() }
}

/// The clauses of a header, the most wanted first.
#[must_use]
pub fn clauses(accept: &str) -> Vec<Clause> {
    let mut clauses: Vec<(f32, Clause)> = Vec::new();
    for text in accept.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_owned();
        let parameters: Vec<(String, String)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let clause = Clause { media, parameters };
        // What is not wanted at all comes last, as in Kubernetes.
        clauses.push((clause.get("q").parse().unwrap_or(1.0), clause));
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
        // Of custom kinds this is seen later, where there is no code for it.
        if lists && kind.custom.is_some() {
            return Some(Status::new(500, "", "content is not a list"));
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

/// How the answer to a request is told.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What is asked for.
    pub format: Format,
    /// Refusals, which are neither Tables nor metadata.
    pub refusals: Format,
    /// Why the answer cannot be told as wanted, which is seen when it is there.
    pub late: Option<Status>,
}

fn value_of<'q>(query: &'q Pairs, name: &str) -> Option<&'q str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn is_pretty(query: &Pairs, user_agent: &str) -> bool {
    match value_of(query, "pretty") {
        Some(value) => matches!(value, "" | "true" | "1"),
        None => ["curl", "Wget", "Mozilla/"].iter().any(|program| user_agent.starts_with(program)),
    }
}

fn media(clause: &Clause) -> Option<Media> {
    // Of streams there is one.
    let streams = match clause.get("stream") {
        "" => false,
        "watch" => true,
        _ => return None,
    };
    match clause.media.as_str() {
        "application/json" | "*/*" | "application/*" => Some(Media::Json),
        "application/yaml" if !streams => Some(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Media::Protobuf),
        _ => None,
    }
}

/// The format of refusals: the first that is accepted as it is; indented JSON where there is none.
#[must_use]
pub fn refusals(accept: &str, query: &Pairs, user_agent: &str) -> Format {
    let clauses = clauses(accept);
    let plain = clauses.iter().filter(|clause| !clause.transforms()).find_map(media);
    match plain {
        None if !clauses.is_empty() => Format { pretty: true, ..Format::JSON },
        plain => {
            let media = plain.unwrap_or(Media::Json);
            let pretty = media == Media::Json && is_pretty(query, user_agent);
            Format { media, pretty, ..Format::JSON }
        }
    }
}

fn include(query: &Pairs) -> Result<Include, Status> {
    match value_of(query, "includeObject") {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("Object") => Ok(Include::Object),
        Some("None") => Ok(Include::None),
        Some(other) => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// The format of an answer to a request for a resource; custom kinds have no protobuf.
///
/// # Errors
/// 406 when nothing that is accepted can be made.
pub fn chosen(accept: &str, query: &Pairs, user_agent: &str, asked: Asked<'_>) -> Result<Chosen, Status> {
    let custom = asked.kind.is_some_and(|kind| kind.custom.is_some());
    if asked.kind.is_some() && !custom {
        let also = if asked.lists { STREAMS.as_slice() } else { &[] };
        produces(accept, &[TYPES.as_slice(), also].concat())?;
    }
    let pretty = is_pretty(query, user_agent);
    let refusals = refusals(accept, query, user_agent);
    let clauses = clauses(accept);
    if accept.is_empty() {
        return Ok(Chosen { format: Format { pretty, ..Format::JSON }, refusals, late: None });
    }
    for clause in &clauses {
        let Some(media) = media(clause) else { continue };
        if media == Media::Protobuf && custom && !clause.transforms() {
            continue;
        }
        let version = MetaVersion::named(clause.get("v")).filter(|_| clause.get("g") == "meta.k8s.io");
        let mut late = None;
        let shape = match clause.get("as") {
            _ if !clause.transforms() => Shape::Whole,
            _ if asked.only_answer || asked.kind.is_none() || version.is_none() => continue,
            "Table" if media != Media::Protobuf => {
                let include = include(query).map_err(|status| late = Some(status));
                Shape::Table(include.unwrap_or(Include::Metadata))
            }
            form @ ("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                late = asked.misfit(form);
                let lists = asked.watches && form == "PartialObjectMetadataList";
                if lists { Shape::Partials } else { Shape::Partial }
            }
            _ => continue,
        };
        if asked.watches && media == Media::Yaml {
            late = Some(Status::not_acceptable(&STREAMS));
        }
        let format = Format {
            media,
            shape,
            pretty: pretty && media == Media::Json,
            meta: version.unwrap_or_default(),
        };
        return Ok(Chosen { format, refusals, late });
    }
    Err(Status::not_acceptable(&TYPES))
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
            let told = chosen(&of(form), &Vec::new(), "", pods(lists, false)).expect("after all").late;
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
            let got = chosen(accept, &Vec::new(), "kubectl", pods(true, false)).expect(accept).format;
            assert_eq!((got.media, got.shape), (media, shape), "{accept}");
        }
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
        let got = chosen(old, &Vec::new(), "", pods(true, false)).expect("the old version").format;
        assert_eq!((got.shape, got.meta), (Shape::Table(Include::Metadata), MetaVersion::V1Beta1));
        let eviction = Asked { only_answer: true, ..pods(false, false) };
        assert_eq!(chosen(old, &Vec::new(), "", eviction).expect_err("kept nowhere").code, 406);
        assert_eq!(chosen("text/html", &Vec::new(), "", pods(false, false)).expect_err("html").code, 406);
        let none = Asked::default();
        assert_eq!(chosen("application/json;as=Table", &Vec::new(), "", none).expect_err("as").code, 406);
    }

    #[test]
    fn what_a_watch_cannot_be_is_told_after_what_is_wrong_with_it() {
        let watch = chosen("application/yaml,application/json", &Vec::new(), "", pods(true, true));
        let watch = watch.expect("a format that refusals have");
        assert_eq!(watch.refusals.media, Media::Yaml);
        assert!(watch.late.expect("no stream").message.contains("stream=watch"));
        let refused = chosen("text/html", &Vec::new(), "", Asked { watches: true, ..Asked::default() });
        assert!(refused.expect_err("html").message.contains("application/yaml"));
    }

    #[test]
    fn refusals_are_told_as_the_first_thing_that_is_no_table() {
        let table = "application/yaml;as=Table;v=v1;g=meta.k8s.io";
        let rows = [
            ("", Media::Json, false),
            ("application/yaml", Media::Yaml, false),
            ("application/vnd.kubernetes.protobuf,application/json", Media::Protobuf, false),
            (table, Media::Json, true),
            ("application/json;v=v1", Media::Json, true),
            (&format!("{table},application/yaml"), Media::Yaml, false),
        ];
        for (accept, media, pretty) in rows {
            let got = refusals(accept, &Vec::new(), "");
            assert_eq!((got.media, got.shape, got.pretty), (media, Shape::Whole, pretty), "{accept}");
        }
    }

    #[test]
    fn bodies_are_of_the_type_that_go_reads() {
        let rows = [
            ("", false, ""),
            ("APPLICATION/Json", false, "application/json"),
            (" application/json ; charset=utf-8;", false, "application/json"),
            ("application/json; charset", false, "application/json; charset"),
            ("application/json; =x", false, "application/json; =x"),
            ("application/json,application/yaml", false, "application/json,application/yaml"),
            ("application/merge-patch+json; charset", true, "application/merge-patch+json"),
            ("Application/merge-patch+json", true, "Application/merge-patch+json"),
        ];
        for (content_type, patches, want) in rows {
            assert_eq!(sent(content_type, patches), want);
        }
    }

    #[test]
    fn a_clause_of_no_form_or_no_stream_is_none() {
        let odd = [
            ",",
            "APPLICATION/JSON",
            "application/json;v=v1",
            "application/json;as=;g=meta.k8s.io",
            "application/json;stream=x",
            "application/yaml;stream=watch",
            "application/json;as=\"Table\";v=v1;g=meta.k8s.io",
        ];
        for accept in odd {
            let refused = chosen(accept, &Vec::new(), "", pods(true, false)).expect_err(accept);
            assert_eq!(refused.code, 406);
        }
    }
}
