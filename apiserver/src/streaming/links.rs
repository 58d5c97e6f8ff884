//! What is behind a proxy does not know under which path it is seen: its links and redirects are told from there.
//!
//! As upstream, links that begin with `/` and those that name the server itself are moved below the proxy's path, in the
//! attributes of HTML that hold them. The body flows on: only a tag that has not ended yet is held.

use crate::request::RequestInfo;
use axum::body::{Body, Bytes};
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};

/// Attributes that hold links, by tag.
const LINKS: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// A longer tag is passed on as it is.
const TAG_BYTES_MAX: usize = 64 << 10;

/// What a proxy shows of a server: the path below which it does, and the hosts that mean the server itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    prefix: String,
    hosts: Vec<String>,
}

impl Shown {
    /// Of a request to `uri` that is carried on to `authority`.
    pub fn of(info: &RequestInfo, uri: &Uri, headers: &HeaderMap, authority: String) -> Self {
        // /api/v1/nodes/NAME/proxy, /api/v1/namespaces/NAMESPACE/pods/NAME/proxy
        let segments = if info.namespace.is_empty() { 6 } else { 8 };
        let prefix = uri.path().split('/').take(segments).collect::<Vec<_>>().join("/");
        let asked = headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        Self { prefix, hosts: asked.into_iter().chain([authority]).collect() }
    }

    /// Where a client is sent that asks for the proxy's very path: one slash further, so that relative links stay below it.
    pub fn root(&self, method: &Method, uri: &Uri) -> Option<Response<Body>> {
        if uri.path() != self.prefix || !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let to = HeaderValue::try_from(format!("{}/{query}", self.prefix)).ok()?;
        response.headers_mut().insert(header::LOCATION, to);
        Some(response)
    }

    /// How the server learns under which path it is seen.
    pub fn forwarded(&self, path: &str) -> Option<HeaderValue> {
        let path = path.split('?').next().unwrap_or_default();
        HeaderValue::try_from(format!("{}{path}", self.prefix)).ok()
    }

    /// The answer with its links moved; CORS is between this server and its own clients.
    pub fn moved(self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        for name in [
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
        ] {
            headers.remove(name);
        }
        if let Some(location) = headers.get(header::LOCATION) {
            let moved = location.to_str().ok().and_then(|to| self.link(to));
            if let Some(moved) = moved.and_then(|to| HeaderValue::try_from(to).ok()) {
                headers.insert(header::LOCATION, moved);
            }
            return response;
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let is_html = kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html");
        // What is packed stays as it is.
        if !is_html || headers.contains_key(header::CONTENT_ENCODING) {
            return response;
        }
        headers.remove(header::CONTENT_LENGTH);
        response.map(|body| {
            let mut page = Page { shown: self, held: Vec::new(), raw_until: None };
            let chunks = body.into_data_stream().map(Some).chain(futures::stream::iter([None]));
            Body::from_stream(chunks.map(move |chunk| match chunk {
                Some(bytes) => bytes.map(|bytes| Bytes::from(page.take(&bytes))),
                None => Ok(Bytes::from(page.end())),
            }))
        })
    }

    /// The link as seen from outside, where that is another.
    fn link(&self, link: &str) -> Option<String> {
        let (host, path) = match link.split_once("//") {
            Some((scheme, rest)) if scheme.is_empty() || matches!(scheme, "http:" | "https:") => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            _ => (None, link),
        };
        if host.is_some_and(|host| !self.hosts.iter().any(|own| own == host)) || !path.starts_with('/') {
            return None;
        }
        let is_below = path.starts_with(&self.prefix);
        Some(if is_below { path.to_owned() } else { format!("{}{path}", self.prefix) })
    }
}

/// HTML on its way.
struct Page {
    shown: Shown,
    /// The beginning of a tag whose end has not come.
    held: Vec<u8>,
    /// What ends text that is no HTML: a script, a style, a comment.
    raw_until: Option<&'static [u8]>,
}

impl Page {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let (mut out, mut rest) = (Vec::with_capacity(held.len()), held.as_slice());
        while let Some(taken) = self.step(rest, &mut out) {
            rest = &rest[taken..];
        }
        self.held = rest.to_vec();
        out
    }

    fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Writes one piece; its length, or nothing when more must come first.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        if rest.is_empty() {
            return None;
        }
        if let Some(until) = self.raw_until {
            let found = find_ignoring_case(rest, until);
            // What may be the beginning of the end waits.
            let length = found.unwrap_or_else(|| rest.len().saturating_sub(until.len() - 1));
            if found.is_some() {
                self.raw_until = None;
            }
            out.extend_from_slice(&rest[..length]);
            return (length > 0 || found.is_some()).then_some(length);
        }
        let text = rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len());
        if text > 0 {
            out.extend_from_slice(&rest[..text]);
            return Some(text);
        }
        if rest.starts_with(b"<!--") {
            self.raw_until = Some(b"-->");
            out.extend_from_slice(b"<!--");
            return Some(4);
        }
        let could_be_comment = b"<!--".starts_with(rest);
        match end_of_tag(rest).filter(|_| !could_be_comment) {
            Some(end) => {
                self.tag(&rest[..end], out);
                Some(end)
            }
            None if rest.len() > TAG_BYTES_MAX => {
                out.push(b'<');
                Some(1)
            }
            None => None,
        }
    }

    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        let name_end =
            tag.iter().skip(1).position(|byte| !byte.is_ascii_alphanumeric()).map_or(1, |at| at + 1);
        let name = tag[1..name_end].to_ascii_lowercase();
        self.raw_until = match name.as_slice() {
            b"script" => Some(b"</script"),
            b"style" => Some(b"</style"),
            _ => None,
        };
        let links = LINKS.iter().find(|(tag, _)| tag.as_bytes() == name).map_or(&[][..], |(_, links)| links);
        out.extend_from_slice(&tag[..name_end]);
        let mut rest = &tag[name_end..];
        while let Some((before, attribute, value, after)) = next_attribute(rest) {
            out.extend_from_slice(before);
            let is_link = links.iter().any(|link| attribute.eq_ignore_ascii_case(link.as_bytes()));
            let moved =
                std::str::from_utf8(value).ok().filter(|_| is_link).and_then(|value| self.shown.link(value));
            out.extend_from_slice(moved.as_deref().map_or(value, str::as_bytes));
            rest = after;
        }
        out.extend_from_slice(rest);
    }
}

fn find_ignoring_case(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

/// Behind the `>` of a tag, quoted ones apart.
fn end_of_tag(tag: &[u8]) -> Option<usize> {
    // A quote is one only behind `=`; elsewhere it is a character.
    let (mut quote, mut before) = (None, b' ');
    for (at, byte) in tag.iter().enumerate() {
        match quote {
            Some(open) if open == *byte => quote = None,
            Some(_) => {}
            None if *byte == b'>' => return Some(at + 1),
            None if before == b'=' && matches!(byte, b'"' | b'\'') => quote = Some(*byte),
            None => {}
        }
        if !byte.is_ascii_whitespace() {
            before = *byte;
        }
    }
    None
}

/// The next attribute that has a value: what stands before the value, the attribute's name, the value, what stands behind.
type Attribute<'a> = (&'a [u8], &'a [u8], &'a [u8], &'a [u8]);

fn next_attribute(tag: &[u8]) -> Option<Attribute<'_>> {
    let equals = tag.iter().position(|byte| *byte == b'=')?;
    let name = tag[..equals].trim_ascii_end();
    let name_at =
        name.iter().rposition(|byte| byte.is_ascii_whitespace() || *byte == b'/').map_or(0, |at| at + 1);
    let spaces = tag[equals + 1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let at = equals + 1 + spaces;
    let (from, length) = match tag.get(at)? {
        quote @ (b'"' | b'\'') => (at + 1, tag[at + 1..].iter().position(|byte| byte == quote)?),
        _ => (at, tag[at..].iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'>')?),
    };
    Some((&tag[..from], &name[name_at..], &tag[from..from + length], &tag[from + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/a/pods/p:80/proxy";

    fn shown() -> Shown {
        Shown { prefix: PREFIX.to_owned(), hosts: vec!["api:6443".to_owned(), "10.0.0.1:80".to_owned()] }
    }

    #[test]
    fn links_to_the_server_itself_are_moved_and_no_others() {
        for (link, moved) in [
            ("/x?q=/y", Some("/api/v1/namespaces/a/pods/p:80/proxy/x?q=/y")),
            ("http://10.0.0.1:80/x", Some("/api/v1/namespaces/a/pods/p:80/proxy/x")),
            ("//api:6443/", Some("/api/v1/namespaces/a/pods/p:80/proxy/")),
            ("/api/v1/namespaces/a/pods/p:80/proxy/x", Some("/api/v1/namespaces/a/pods/p:80/proxy/x")),
            ("x/y", None),
            ("#top", None),
            ("http://elsewhere/x", None),
            ("//elsewhere/x", None),
            ("mailto:a//b", None),
        ] {
            assert_eq!(shown().link(link).as_deref(), moved, "{link}");
        }
    }

    #[test]
    fn pages_are_the_same_but_for_their_links_however_they_come_in_pieces() {
        let page = r#"<!DOCTYPE html><A class=x HREF="/rewriteme">a < b</A><!-- <a href="/no"> --><img alt='>' src=/i.png><a href='t'>é<script src="/s">if (a<b) x = '<a href="/no">';</SCRIPT><p href="/no"><form action = "/f"/></form><a href="/cut"#;
        let wanted = page
            .replace("/rewriteme", &format!("{PREFIX}/rewriteme"))
            .replace("/i.png", &format!("{PREFIX}/i.png"))
            .replace("\"/s\"", &format!("\"{PREFIX}/s\""))
            .replace("\"/f\"", &format!("\"{PREFIX}/f\""));
        for size in [1, 2, 7, page.len()] {
            let mut parser = Page { shown: shown(), held: Vec::new(), raw_until: None };
            let mut out: Vec<u8> =
                page.as_bytes().chunks(size).flat_map(|chunk| parser.take(chunk)).collect();
            out.extend(parser.end());
            assert_eq!(String::from_utf8(out).expect("text"), wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn the_proxys_very_path_is_sent_one_slash_further() {
        let location = |method: Method, path: &str| {
            let response = shown().root(&method, &path.parse().expect("a path"))?;
            assert_eq!(response.status(), 301);
            Some(response.headers()[header::LOCATION].to_str().expect("text").to_owned())
        };
        assert_eq!(location(Method::GET, &format!("{PREFIX}?q=1")), Some(format!("{PREFIX}/?q=1")));
        assert_eq!(location(Method::HEAD, PREFIX), Some(format!("{PREFIX}/")));
        assert_eq!(location(Method::POST, PREFIX), None);
        assert_eq!(location(Method::GET, &format!("{PREFIX}/")), None);
    }

    #[tokio::test]
    async fn redirects_and_pages_are_told_from_outside_and_nothing_else_is_touched() {
        let answer = |name: &'static str, value: &'static str, body: &'static str| {
            let response = Response::builder().header(name, value).header("content-length", body.len());
            shown().moved(response.body(Body::from(body)).expect("a response"))
        };
        let redirect = answer("location", "/login", "");
        assert_eq!(redirect.headers()["location"], format!("{PREFIX}/login").as_str());
        let page = answer("content-type", "text/html; charset=utf-8", "<a href=\"/x\">");
        assert!(!page.headers().contains_key("content-length"));
        let page = axum::body::to_bytes(page.into_body(), 1000).await.expect("a page");
        assert_eq!(page, format!("<a href=\"{PREFIX}/x\">").as_bytes());
        let text = answer("content-type", "text/plain", "<a href=\"/x\">");
        assert_eq!(text.headers()["content-length"], "13");
        assert!(
            !answer("access-control-allow-origin", "*", "")
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }
}
