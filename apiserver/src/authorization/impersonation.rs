//! `Impersonate-*` headers: the user that a request is run as, if its sender may.

use super::Authorization;
use crate::request::{RequestInfo, UserInfo, extra_key};
use coracle_api::labels;
use coracle_api::status::Status;
use http::HeaderMap;
use std::collections::BTreeMap;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    // What no account can be called is a user like any other.
    let valid =
        labels::is_dns1123_label(namespace).is_empty() && labels::is_dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

fn text(value: &http::HeaderValue) -> Result<String, Status> {
    let text = value.to_str().map_err(|_| Status::bad_request("impersonation headers must be plain text"))?;
    Ok(text.to_owned())
}

/// What the headers ask for; `None` when they ask for nothing.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let first = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            extra.entry(extra_key(key)).or_default().push(text(value)?);
        }
    }
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let user = UserInfo { name: first(USER)?, uid: first(UID)?, groups, extra };
    if user == UserInfo::default() {
        return Ok(None);
    }
    if user.name.is_empty() {
        return Err(Status::new(
            500,
            "",
            format!("requested [{}] without impersonating a user", shown(&user)),
        ));
    }
    Ok(Some(user))
}

/// What is asked for, as Go shows references to it.
fn shown(user: &UserInfo) -> String {
    const VERSION: &str = "authentication.k8s.io/v1";
    let mut all: Vec<String> = user.groups.iter().map(|group| format!("{{Group  {group}    }}")).collect();
    for (key, values) in &user.extra {
        all.extend(values.iter().map(|value| format!("{{UserExtra  {value}  {VERSION}  {key}}}")));
    }
    if !user.uid.is_empty() {
        all.push(format!("{{UID  {}  {VERSION}  }}", user.uid));
    }
    all.join(" ")
}

/// The permissions that it takes to be `user`.
fn questions(user: &UserInfo) -> Vec<RequestInfo> {
    const GROUP_OF_EXTRAS: &str = "authentication.k8s.io";
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| RequestInfo {
        is_resource: true,
        verb: "impersonate".to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    let mut questions = vec![match service_account(&user.name) {
        Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name),
        None => ask("", "users", "", "", &user.name),
    }];
    questions.extend(user.groups.iter().map(|group| ask("", "groups", "", "", group)));
    for (key, values) in &user.extra {
        questions.extend(values.iter().map(|value| ask(GROUP_OF_EXTRAS, "userextras", key, "", value)));
    }
    if !user.uid.is_empty() {
        questions.push(ask(GROUP_OF_EXTRAS, "uids", "", "", &user.uid));
    }
    questions
}

impl Authorization {
    /// The user that the request is to be run as, after checking `Impersonate-*` headers.
    ///
    /// # Errors
    /// 400 or 403; 500 where no user is named, which is told as plain text.
    pub async fn impersonated(&self, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
        let Some(mut wanted) = wanted(headers)? else { return Ok(user) };
        for question in questions(&wanted) {
            self.authorize(&user, &question).await?;
        }
        if let Some((namespace, _)) = service_account(&wanted.name)
            && wanted.groups.is_empty()
        {
            wanted.groups =
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let has = |group: &str| wanted.groups.iter().any(|own| own == group);
        let anonymous = wanted.name == ANONYMOUS;
        if !has(UNAUTHENTICATED) && (anonymous || !has(AUTHENTICATED)) {
            wanted.groups.push(if anonymous { UNAUTHENTICATED } else { AUTHENTICATED }.to_owned());
        }
        crate::audit::impersonated(&wanted);
        Ok(wanted)
    }
}
