//! What only pods on Windows have: host processes, and the accounts that containers run as.

use super::super::node::{Faults, Node};
use super::each_container;
use crate::labels;
use serde_json::json;

const SPEC_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
const USER_FORBIDDEN: &str = "\"/\\:;|=,+*?<>@[]";

pub(super) fn options(options: &Node<'_, '_>, out: &mut Faults) {
    let (name, spec, user) = (
        options.get("gmsaCredentialSpecName"),
        options.get("gmsaCredentialSpec"),
        options.get("runAsUserName"),
    );
    if name.is_set() {
        name.text_must(labels::is_dns1123_subdomain, out);
    }
    if spec.is_set() && spec.is_empty() {
        spec.invalid("gmsaCredentialSpec cannot be an empty string", out);
    } else if spec.text().len() > SPEC_MAX {
        spec.invalid("gmsaCredentialSpec size must be under 64 KiB", out);
    }
    if user.is_set() {
        user_name(&user, out);
    }
}

/// `USER` or `DOMAIN\USER`.
fn user_name(name: &Node<'_, '_>, out: &mut Faults) {
    let text = name.text();
    if text.is_empty() {
        return name.invalid("runAsUserName cannot be an empty string", out);
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return name.invalid("runAsUserName cannot contain control characters", out);
    }
    if text.matches('\\').count() > 1 {
        return name.invalid("runAsUserName cannot contain more than one backslash", out);
    }
    let (domain, user) = text.split_once('\\').map_or((None, text), |(domain, user)| (Some(domain), user));
    let domain_length = domain.map_or(0, str::len);
    let rows = [
        (domain_length >= DOMAIN_MAX, "runAsUserName's Domain length must be under 256 characters"),
        (
            domain.is_some_and(|domain| !is_net_bios(domain) && !is_domain(domain)),
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
        ),
        (user.is_empty(), "runAsUserName's User cannot be empty"),
        (user.len() > USER_MAX, "runAsUserName's User length must not be longer than 104 characters"),
        (
            !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')),
            "runAsUserName's User cannot contain only periods or spaces",
        ),
    ];
    rows.into_iter().filter(|(wrong, _)| *wrong).for_each(|(_, text)| name.invalid(text, out));
    if user.chars().any(|c| USER_FORBIDDEN.contains(c)) {
        let start = "runAsUserName's User cannot contain the following characters: ";
        name.invalid(format!("{start}{USER_FORBIDDEN}"), out);
    }
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| labels::is_dns1123_label(&label.to_lowercase()).is_empty())
}

/// Processes of the host: all containers of a pod are, or none.
pub(super) fn host_processes(spec: &Node<'_, '_>, out: &mut Faults) {
    let whole = spec.get("securityContext.windowsOptions.hostProcess").value.as_bool();
    let (mut count, mut of_host) = (0, 0);
    each_container(spec, |container| {
        let own = container.get("securityContext.windowsOptions.hostProcess");
        count += 1;
        of_host += usize::from(own.value.as_bool().or(whole) == Some(true));
        if let (Some(whole), Some(mine)) = (whole, own.value.as_bool())
            && whole != mine
        {
            let detail = "pod hostProcess value must be identical if both are specified, was";
            own.invalid(format!("{detail} {whole}"), out);
        }
    });
    if of_host == 0 {
        return;
    }
    if of_host != count {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_as(&json!(""), detail, out);
    }
    if !spec.get("hostNetwork").is_true() {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.get("hostNetwork").invalid_as(&json!(false), detail, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn accounts_are_users_with_or_without_a_domain() {
        for (name, want) in [
            ("user", ""),
            ("NT AUTHORITY\\SYSTEM", ""),
            ("a.b\\user", ""),
            ("", "runAsUserName cannot be an empty string"),
            ("a\\b\\c", "runAsUserName cannot contain more than one backslash"),
            ("a\\", "runAsUserName's User cannot be empty"),
            ("\\a", "runAsUserName's Domain doesn't match the NetBios nor the DNS format"),
            ("..", "runAsUserName's User cannot contain only periods or spaces"),
            ("a@b", "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"),
        ] {
            let (value, mut out) = (Value::from(name), Faults::new());
            user_name(&Node::root(&value), &mut out);
            assert_eq!(out.first().map_or("", |fault| &fault.detail), want, "{name}");
        }
    }
}
