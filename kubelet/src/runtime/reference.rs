//! Image names as people write them in, as containerd keeps them out: `nginx` → `docker.io/library/nginx:latest`.
//!
//! The grammar is that of the distribution project's references: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

const DEFAULT_HOST: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name, host included.
const NAME_BYTES_MAX: usize = 255;

/// The name does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format")]
pub struct Invalid;

/// A complete image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port of the registry.
    pub host: String,
    /// The repository there.
    pub path: String,
    /// The tag, when named or when nothing else is.
    pub tag: Option<String>,
    /// The digest, when named.
    pub digest: Option<String>,
}

impl Reference {
    /// Completes a name.
    ///
    /// # Errors
    /// The name does not follow the grammar.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (name, None),
        };
        // A colon before the last slash belongs to a port.
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
            _ => (rest, None),
        };
        let (host, path) = match repository.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_HOST, repository),
        };
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let path = if host == DEFAULT_HOST && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let valid = valid_host(host)
            && path.split('/').all(valid_component)
            && host.len() + 1 + path.len() <= NAME_BYTES_MAX
            && tag.is_none_or(valid_tag)
            && digest.is_none_or(valid_digest);
        if !valid {
            return Err(Invalid);
        }
        let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
        Ok(Self { host: host.to_owned(), path, tag, digest: digest.map(str::to_owned) })
    }

    /// What a registry calls this version: the digest before the tag.
    #[must_use]
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }

    /// Host and repository.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn valid_host(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case letters and digits, with single dots, one or two underscores, or dashes between them.
fn valid_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separators_are_valid = component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'));
    component.bytes().next().is_some_and(alphanumeric)
        && component.bytes().last().is_some_and(alphanumeric)
        && separators_are_valid
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn valid_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("nginx@{digest}");
        let both = format!("nginx:1@{digest}");
        let rows: [(&str, Option<String>); 16] = [
            ("nginx", Some("docker.io/library/nginx:latest".into())),
            ("nginx:1.25", Some("docker.io/library/nginx:1.25".into())),
            ("me/tool", Some("docker.io/me/tool:latest".into())),
            ("localhost:5000/tool", Some("localhost:5000/tool:latest".into())),
            ("localhost/tool:2", Some("localhost/tool:2".into())),
            ("registry.k8s.io/pause:3.9", Some("registry.k8s.io/pause:3.9".into())),
            ("index.docker.io/a/b", Some("docker.io/a/b:latest".into())),
            (&pinned, Some(format!("docker.io/library/nginx@{digest}"))),
            (&both, Some(format!("docker.io/library/nginx:1@{digest}"))),
            ("a__b/c-d--e.f", Some("docker.io/a__b/c-d--e.f:latest".into())),
            ("Nginx", None),
            ("nginx:", None),
            ("nginx:a b", None),
            ("", None),
            ("a//b", None),
            ("nginx@sha256:12", None),
        ];
        for (name, expected) in rows {
            assert_eq!(Reference::parse(name).ok().map(|r| r.to_string()), expected, "{name}");
        }
    }
}
