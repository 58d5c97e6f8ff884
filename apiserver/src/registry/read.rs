//! get and list.

use super::select::Selection;
use super::{Call, Registry, Reply, conversion};
use crate::storage::encode::{self, ListMeta};
use crate::storage::entry::Entry;
use crate::storage::{Resource, unreachable};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use bytes::Bytes;
use coracle_api::decode;
use coracle_api::status::{FieldError, GroupResource, Status};
use coracle_etcd::KvError;
use coracle_etcd::kv::prefix_end;
use coracle_etcd::proto::RangeRequest;
use serde_json::json;
use std::cell::Cell;
use std::sync::Arc;

const CONTINUE_GONE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// A revision from a query; `None` when absent.
///
/// # Errors
/// 400 when it is no number.
pub(super) fn revision(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| Status::bad_request(format!("invalid resource version: {}", no_revision(text))))
}

/// How a revision that is none is told.
pub(super) fn no_revision(text: &str) -> String {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fault = if is_number { "value out of range" } else { "invalid syntax" };
    let fault = format!("strconv.ParseUint: parsing {text:?}: {fault}");
    FieldError::invalid("resourceVersion", &json!(text), fault).to_string()
}

/// A number of the query; `None` when absent.
///
/// # Errors
/// 400 in Go's words.
pub(super) fn integer(text: &str) -> Result<Option<i64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let fault = if is_number { "value out of range" } else { "invalid syntax" };
        Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {fault}"))
    })
}

/// Refuses seconds that are no number, which also those may not be that do not matter.
pub(super) fn check_timeout(call: &Call) -> Result<(), Status> {
    integer(call.query("timeoutSeconds")).map(drop)
}

/// What a list asks for beside its selection.
struct Page {
    /// `None`: as fresh as the store.
    at_least: Option<u64>,
    exact: bool,
    limit: usize,
    /// Where an earlier page ended, and its revision.
    from: Option<(Option<u64>, String)>,
}

impl Page {
    fn read(call: &Call) -> Result<Self, Status> {
        let (version, rule) = (call.query("resourceVersion"), call.query("resourceVersionMatch"));
        let limit = integer(call.query("limit"))?.unwrap_or(0);
        let token = call.query("continue");
        let mut faults = Vec::new();
        if !rule.is_empty() {
            if version.is_empty() {
                faults.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !token.is_empty() {
                faults.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(rule, "Exact" | "NotOlderThan") {
                faults.push(FieldError::not_supported(
                    "resourceVersionMatch",
                    &json!(rule),
                    &["Exact", "NotOlderThan", ""],
                ));
            }
            if rule == "Exact" && version == "0" {
                faults.push(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if call.says("sendInitialEvents") {
            let why = "sendInitialEvents is forbidden for list";
            faults.push(FieldError::forbidden("sendInitialEvents", why));
        }
        if !faults.is_empty() {
            return Err(Status::invalid(&GroupResource::new("meta.k8s.io", "ListOptions"), "", &faults));
        }
        let from = if token.is_empty() { None } else { Some(opened(token)?) };
        if from.is_some() && !version.is_empty() && version != "0" {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        // As in Kubernetes, limit with a resourceVersion and no rule means exactly that one.
        let exact = rule == "Exact" || (rule.is_empty() && limit > 0 && version != "0");
        Ok(Self { at_least: revision(version)?, exact, limit: usize::try_from(limit).unwrap_or(0), from })
    }
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// The revision that stands for the latest one: what follows may not fit what came before.
const LATEST: i64 = -1;
/// As Go reads them: whatever the last, unused bits are.
const TOKENS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

/// Go's words.
fn base64_fault(token: &str, fault: &base64::DecodeError) -> String {
    let at = match fault {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(length) => length.saturating_sub(1),
        base64::DecodeError::InvalidPadding => token.find('=').unwrap_or_default(),
    };
    format!("illegal base64 data at input byte {at}")
}

fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Where a list goes on: a name as it stands behind the list's own prefix.
fn sealed(revision: i64, start: &str) -> String {
    TOKENS.encode(json!({"v": TOKEN_VERSION, "rv": revision, "start": start}).to_string())
}

/// The revision, `None` for the latest, and the name to begin at.
fn opened(token: &str) -> Result<(Option<u64>, String), Status> {
    let wrong = |error: &str| {
        Status::bad_request(format!("invalid continue token: continue key is not valid: {error}"))
    };
    let bytes = TOKENS.decode(token).map_err(|error| wrong(&base64_fault(token, &error)))?;
    let token = decode::document_of_json(&bytes).map_err(|error| wrong(&error))?;
    if !token.is_object() && !token.is_null() {
        let found = decode::found(&token);
        return Err(wrong(&format!(
            "json: cannot unmarshal {found} into Go value of type storage.continueToken"
        )));
    }
    let version = token["v"].as_str().unwrap_or_default();
    if version != TOKEN_VERSION {
        return Err(wrong(&format!("server does not recognize this encoded version {version}")));
    }
    let of = |what: &str| wrong(&format!("{what} (version {TOKEN_VERSION})"));
    let revision = token["rv"].as_i64().filter(|revision| *revision != 0);
    let revision = revision.ok_or_else(|| of("incorrect encoded start resourceVersion"))?;
    let start = token["start"].as_str().unwrap_or_default();
    if start.is_empty() {
        return Err(of("encoded start key empty"));
    }
    // No way out of what is listed.
    if start.trim_start_matches('/').split('/').any(|part| part == "..") {
        return Err(wrong(start));
    }
    Ok((u64::try_from(revision).ok(), start.trim_start_matches('/').to_owned()))
}

impl Registry {
    pub(super) async fn get(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        if call.flag("export") {
            let why = "the export parameter, deprecated since v1.14, is no longer supported";
            return Err(Status::bad_request(why));
        }
        let entry = self.shown_one(kind, self.find(call).await?).await?;
        Ok(Reply::bytes(200, call.format, encode::entry(call.format, kind, &entry)?))
    }

    /// The object that the URL names, as fresh as the query wants it.
    pub(super) async fn find(&self, call: &Call) -> Result<Arc<Entry>, Status> {
        let kind = call.kind()?;
        let resource = self.resource(kind)?;
        let tail = super::tail(super::home(kind, &call.info), &call.info.name)?;
        let version = call.query("resourceVersion");
        let wanted = revision(version).map_err(|_| Status::new(500, "", no_revision(version)))?;
        let found = match wanted {
            None => self.store.current(&resource, &tail).await?,
            Some(wanted) => {
                self.store.reach(wanted).await?;
                match resource.cache.get(&tail) {
                    Some(entry) => Some(entry),
                    None => self.store.get(&resource, &tail).await?,
                }
            }
        };
        found.ok_or_else(|| Status::not_found(&kind.group_resource(), &call.info.name))
    }

    pub(super) async fn list(&self, call: &Call) -> Result<Reply, Status> {
        let kind = call.kind()?;
        let (entries, mut about) = self.asked_for(call).await?;
        about.says_end = kind.custom.is_some() && call.format.shape == encode::Shape::Whole;
        let entries = self.shown(kind, entries).await?;
        Ok(Reply::bytes(200, call.format, encode::list(call.format, kind, &entries, &about)?))
    }

    /// The objects of a collection that the query selects, page by page where it says so.
    pub(super) async fn asked_for(&self, call: &Call) -> Result<(Vec<Arc<Entry>>, ListMeta), Status> {
        let kind = call.kind()?;
        check_timeout(call)?;
        let (selection, page) = (Selection::read(call, kind)?, Page::read(call)?);
        let resource = self.resource(kind)?;
        if !conversion::asks(kind) {
            return self.listed(&resource, &selection, &page).await;
        }
        // What a webhook makes of stored objects is selected, not these: a page may hold less than its limit.
        let (entries, mut about) = self.listed(&resource, &selection.place(), &page).await?;
        about.remaining = about.remaining.filter(|_| selection.is_all());
        let mut entries = self.shown(kind, entries).await?;
        entries.retain(|entry| selection.matches(entry));
        Ok((entries, about))
    }

    async fn listed(
        &self,
        resource: &Resource,
        selection: &Selection,
        page: &Page,
    ) -> Result<(Vec<Arc<Entry>>, ListMeta), Status> {
        match (&page.from, page.at_least) {
            (Some((Some(revision), start)), _) => {
                return self.stored(resource, selection, *revision, start, page.limit).await;
            }
            (Some((None, start)), _) => {
                self.store.fresh().await?;
                return self.stored(resource, selection, self.store.progress(), start, page.limit).await;
            }
            (None, Some(revision)) if page.exact => {
                return self.stored(resource, selection, revision, "", page.limit).await;
            }
            (None, Some(at_least)) => self.store.reach(at_least).await?,
            (None, None) => self.store.fresh().await?,
        }
        let progress = self.store.progress();
        let (namespace, wanted) = (&selection.namespace, |entry: &Entry| selection.matches(entry));
        // From the cache at resourceVersion 0 Kubernetes sends everything whatever the limit.
        let limited = page.limit > 0 && page.at_least != Some(0);
        let (entries, remaining, revision) = if limited && selection.is_all() {
            resource.cache.first(namespace, progress, page.limit)
        } else if limited {
            // Whether there is more is seen before it is known whether that is wanted.
            let (taken, passed) = (Cell::new(0), Cell::new(0));
            let (entries, revision) = resource.cache.list(namespace, progress, |entry| {
                let full = taken.get() == page.limit;
                passed.set(passed.get() + usize::from(full && selection.names(entry)));
                let takes = !full && wanted(entry);
                taken.set(taken.get() + usize::from(takes));
                takes
            });
            (entries, passed.get(), revision)
        } else {
            let (entries, revision) = resource.cache.list(namespace, progress, wanted);
            (entries, 0, revision)
        };
        let mut about = ListMeta { revision, ..ListMeta::default() };
        if remaining > 0 {
            let last = entries.last().map(|last| selection.within(&last.tail));
            about.continue_token = last.map(|last| sealed(signed(revision), &format!("{last}\0")));
            about.remaining = selection.is_all().then_some(remaining as u64);
        }
        Ok((entries, about))
    }

    /// A list at exactly `at` from the store, page by page.
    async fn stored(
        &self,
        resource: &Resource,
        selection: &Selection,
        at: u64,
        start: &str,
        limit: usize,
    ) -> Result<(Vec<Arc<Entry>>, ListMeta), Status> {
        const PAGE: i64 = 500;
        if i64::try_from(at).is_err() {
            // No store can have come so far.
            return Err(Status::too_large_resource_version(at, self.store.progress()));
        }
        let inside =
            if selection.namespace.is_empty() { String::new() } else { format!("{}/", selection.namespace) };
        let prefix = format!("{}{inside}", resource.prefix);
        let end = prefix_end(prefix.as_bytes());
        let mut key = Bytes::from(format!("{prefix}{start}"));
        let mut about = ListMeta { revision: at, ..ListMeta::default() };
        let mut entries = Vec::new();
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: end.clone(),
                limit: PAGE,
                revision: signed(at),
                ..RangeRequest::default()
            };
            let answer = self.store.kv().range(request).await.map_err(|error| match error {
                KvError::Compacted { .. } if start.is_empty() => {
                    Status::expired("The resourceVersion for the provided list is too old.")
                }
                KvError::Compacted { .. } => {
                    let mut gone = Status::expired(CONTINUE_GONE);
                    gone.continue_token = Some(sealed(LATEST, start).into());
                    gone
                }
                // The store's own words, as upstream passes them on.
                KvError::FutureRevision => {
                    Status::new(500, "", "etcdserver: mvcc: required revision is a future revision")
                }
                other => unreachable(&other),
            })?;
            let count = usize::try_from(answer.count).unwrap_or(0);
            for (index, kv) in answer.kvs.iter().enumerate() {
                let tail = String::from_utf8_lossy(&kv.key[resource.prefix.len()..]).into_owned();
                let entry = Entry::new(&tail, u64::try_from(kv.mod_revision).unwrap_or(0), kv.value.clone());
                if selection.matches(&entry) {
                    entries.push(Arc::new(entry));
                }
                let remaining = count.saturating_sub(index + 1);
                if limit > 0 && entries.len() == limit && remaining > 0 {
                    about.continue_token =
                        Some(sealed(signed(at), &format!("{}\0", selection.within(&tail))));
                    about.remaining = selection.is_all().then_some(remaining as u64);
                    return Ok((entries, about));
                }
            }
            match answer.kvs.last().filter(|_| answer.more) {
                Some(last) => key = [last.key.as_ref(), b"\0"].concat().into(),
                None => return Ok((entries, about)),
            }
        }
    }
}
