//! Tokens in a file (`--token-auth-file`): lines of `token,user,uid[,"group1,group2"]`, read once.
//!
//! Invariant: tokens are found by their digests, so that how long a look takes tells nothing of them.

use crate::request::UserInfo;
use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// The users of the tokens.
pub struct TokenFile {
    users: HashMap<[u8; 32], UserInfo>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line lacks a column.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read --token-auth-file {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("token file '{}'", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut users = HashMap::new();
        for (line, record) in text.lines().enumerate().filter(|(_, record)| !record.is_empty()) {
            let line = line + 1;
            let mut columns = columns(record).with_context(|| format!("line {line}"))?.into_iter();
            let found = columns.len();
            let (Some(token), Some(name), Some(uid)) = (columns.next(), columns.next(), columns.next())
            else {
                bail!("must have at least 3 columns (token, user name, user uid), found {found}");
            };
            if token.is_empty() {
                tracing::warn!(line, "empty token has been found in the token file");
                continue;
            }
            let groups = columns.next().filter(|groups| !groups.is_empty());
            let groups = groups.iter().flat_map(|groups| groups.split(',')).map(str::to_owned).collect();
            let user = UserInfo { name, uid, groups, ..UserInfo::default() };
            if users.insert(Sha256::digest(&token).into(), user).is_some() {
                tracing::warn!(line, "duplicate token has been found in the token file");
            }
        }
        Ok(Self { users })
    }

    /// Whose a token is.
    #[must_use]
    pub fn user(&self, token: &str) -> Option<&UserInfo> {
        self.users.get::<[u8; 32]>(&Sha256::digest(token).into())
    }
}

/// The columns of a line of CSV; one in quotes may hold commas, and quotes twice.
fn columns(record: &str) -> anyhow::Result<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = Some(record);
    while let Some(text) = rest {
        let Some(quoted) = text.strip_prefix('"') else {
            let (column, after) =
                text.split_once(',').map_or((text, None), |(own, after)| (own, Some(after)));
            ensure!(!column.contains('"'), "bare \" in a column that is not quoted");
            columns.push(column.to_owned());
            rest = after;
            continue;
        };
        let mut column = String::new();
        let mut pieces = quoted.split('"');
        column.push_str(pieces.next().unwrap_or_default());
        // Behind each closing quote: nothing, when another opens right after it; else a comma and the next column.
        let mut left = quoted.get(column.len()..).unwrap_or_default();
        loop {
            left = left.strip_prefix('"').context("extraneous or missing \" in a quoted column")?;
            let Some(more) = left.strip_prefix('"') else { break };
            let end = more.find('"').unwrap_or(more.len());
            column.push('"');
            column.push_str(&more[..end]);
            left = &more[end..];
        }
        ensure!(left.is_empty() || left.starts_with(','), "extraneous or missing \" in a quoted column");
        columns.push(column);
        rest = left.strip_prefix(',');
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_lines_user() {
        let text = "t1,jane,7,\"devs,ops\"\r\n\nt2,john,8\nt3,ann,9,devs,ignored\n,nobody,0\n\"a\"\"b,c\",eve,\nt2,jim,8,\"\"\n";
        let file = TokenFile::parse(text).expect("file");
        let told = |token: &str| file.user(token).map(|user| (user.name.clone(), user.groups.join(" ")));
        let is = |name: &str, groups: &str| Some((name.to_owned(), groups.to_owned()));
        assert_eq!(told("t1"), is("jane", "devs ops"));
        assert_eq!(told("t2"), is("jim", ""), "the last of a token counts");
        assert_eq!(told("t3"), is("ann", "devs"));
        assert_eq!(told("a\"b,c"), is("eve", ""));
        assert_eq!((told(""), told("t")), (None, None));
        assert_eq!(file.user("t1").map(|user| user.uid.as_str()), Some("7"));
    }

    #[test]
    fn a_bad_line_is_refused_without_its_token() {
        for text in
            ["sesame,jane", "\"sesame,jane,1", "\"sesame\"x,jane,1", "se\"same,jane,1", "\"sesame\"\"", "\""]
        {
            let error = TokenFile::parse(text).err().map(|error| format!("{error:#}")).expect(text);
            assert!(!error.contains("same"), "{error}");
        }
    }
}
