//! Records and their bodies as bytes.

use bytes::Bytes;

/// Bytes of an entry's body before its payload.
pub(super) const ENTRY_HEAD: usize = 25;

/// Names an entry: who proposed it, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId {
    /// Term of the leader.
    pub term: u64,
    /// The leader.
    pub leader: u64,
    /// Position in the log.
    pub index: u64,
}

/// Whom this member follows, or whom it promised its vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Term of the vote.
    pub term: u64,
    /// The member voted for.
    pub member: u64,
    /// Whether a majority granted it.
    pub committed: bool,
}

/// One entry of the replicated log. What the payload means is not the log's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Kind of payload.
    pub kind: u8,
    /// The payload.
    pub payload: Bytes,
}

/// What is true at the beginning of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The vote.
    pub vote: Option<Vote>,
    /// Last entry known to be committed.
    pub committed: Option<EntryId>,
    /// Last entry that was dropped from the log's beginning.
    pub purged: Option<EntryId>,
    /// Last entry, or `purged`.
    pub last: Option<EntryId>,
}

/// One change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Follows or votes.
    Vote(Vote),
    /// Appends.
    Entry(Entry),
    /// Drops all entries after this one.
    TruncateAfter(Option<EntryId>),
    /// Drops all entries up to and including this one.
    Purge(EntryId),
    /// Everything up to this entry is decided.
    Committed(Option<EntryId>),
    /// Begins a segment.
    Head(Head),
}

impl Record {
    /// The kind byte.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Vote(_) => 1,
            Self::Entry(_) => 2,
            Self::TruncateAfter(_) => 3,
            Self::Purge(_) => 4,
            Self::Committed(_) => 5,
            Self::Head(_) => 6,
        }
    }

    /// Length of the body.
    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::Vote(_) => 17,
            Self::Entry(entry) => ENTRY_HEAD + entry.payload.len(),
            Self::Purge(_) => 24,
            Self::TruncateAfter(id) | Self::Committed(id) => optional_len(id.as_ref()),
            Self::Head(head) => {
                1 + if head.vote.is_some() { 17 } else { 0 }
                    + [&head.committed, &head.purged, &head.last]
                        .map(|id| optional_len(id.as_ref()))
                        .iter()
                        .sum::<usize>()
            }
        }
    }

    /// Appends the body to `out`.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Vote(vote) => put_vote(out, vote),
            Self::Entry(entry) => {
                put_id(out, &entry.id);
                out.push(entry.kind);
                out.extend_from_slice(&entry.payload);
            }
            Self::Purge(id) => put_id(out, id),
            Self::TruncateAfter(id) | Self::Committed(id) => put_optional(out, id.as_ref()),
            Self::Head(head) => {
                out.push(u8::from(head.vote.is_some()));
                if let Some(vote) = &head.vote {
                    put_vote(out, vote);
                }
                for id in [&head.committed, &head.purged, &head.last] {
                    put_optional(out, id.as_ref());
                }
            }
        }
    }

    /// Reads a body; `None` when it is no body of that kind.
    pub(super) fn from_body(kind: u8, body: &[u8]) -> Option<Self> {
        let mut from = Reader { bytes: body };
        let record = match kind {
            1 => Self::Vote(from.vote()?),
            2 => {
                let (id, kind) = (from.id()?, from.byte()?);
                Self::Entry(Entry {
                    id,
                    kind,
                    payload: Bytes::copy_from_slice(std::mem::take(&mut from.bytes)),
                })
            }
            3 => Self::TruncateAfter(from.optional()?),
            4 => Self::Purge(from.id()?),
            5 => Self::Committed(from.optional()?),
            6 => {
                let vote = if from.flag()? { Some(from.vote()?) } else { None };
                Self::Head(Head {
                    vote,
                    committed: from.optional()?,
                    purged: from.optional()?,
                    last: from.optional()?,
                })
            }
            _ => return None,
        };
        from.bytes.is_empty().then_some(record)
    }
}

fn optional_len(id: Option<&EntryId>) -> usize {
    if id.is_some() { 25 } else { 1 }
}

fn put_id(out: &mut Vec<u8>, id: &EntryId) {
    for number in [id.term, id.leader, id.index] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_optional(out: &mut Vec<u8>, id: Option<&EntryId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_id(out, id);
    }
}

fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend_from_slice(&vote.term.to_le_bytes());
    out.extend_from_slice(&vote.member.to_le_bytes());
    out.push(u8::from(vote.committed));
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.bytes.split_first_chunk::<8>()?;
        self.bytes = rest;
        Some(u64::from_le_bytes(*head))
    }

    fn byte(&mut self) -> Option<u8> {
        let (head, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*head)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn id(&mut self) -> Option<EntryId> {
        Some(EntryId { term: self.u64()?, leader: self.u64()?, index: self.u64()? })
    }

    fn optional(&mut self) -> Option<Option<EntryId>> {
        if self.flag()? { Some(Some(self.id()?)) } else { Some(None) }
    }

    fn vote(&mut self) -> Option<Vote> {
        Some(Vote { term: self.u64()?, member: self.u64()?, committed: self.flag()? })
    }
}
