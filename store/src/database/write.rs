//! Writing state as etcd's database.

use super::{AUTH_ENABLED, LeaseRow, TOMBSTONE, bucket, meta, revision_key};
use crate::bolt::{self, Buckets, Layout};
use crate::consensus::Member;
use crate::machine::{Record, View};
use coracle_etcd::proto::{AlarmMember, KeyValue};
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Bytes of the hash behind the database.
pub const HASH: u64 = 32;

/// The state of one moment, ready to be written.
#[derive(Debug)]
pub struct Dump {
    view: View,
    about: About,
    layout: Layout,
}

/// What the state stands beside: for whoever looks into the file.
#[derive(Debug)]
struct About {
    members: Vec<Member>,
    applied: u64,
    term: u64,
}

impl Dump {
    /// Of `view`, which the entry `applied` of `term` led to.
    ///
    /// # Errors
    /// A value is longer than a database takes, which no request can make.
    pub fn new(view: View, members: Vec<Member>, applied: u64, term: u64) -> io::Result<Self> {
        let about = About { members, applied, term };
        let layout = bolt::measure(|buckets| fill(buckets, &view, &about))?;
        Ok(Self { view, about, layout })
    }

    /// Bytes of the database, without the hash.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// Writes the database, and returns its hash, which belongs behind it.
    ///
    /// # Errors
    /// `out` fails.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<[u8; HASH as usize]> {
        let mut hashed = Hashed { out, hash: Sha256::new() };
        bolt::write(&self.layout, &mut hashed, |buckets| fill(buckets, &self.view, &self.about))?;
        Ok(hashed.hash.finalize().into())
    }
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn fill(buckets: &mut Buckets<'_>, view: &View, about: &About) -> io::Result<()> {
    // Unlike those of the other buckets, the keys of alarms and leases are not in the order of what they stand for.
    let alarms: BTreeMap<Vec<u8>, &[u8]> = view
        .alarms()
        .map(|(member_id, alarm)| (AlarmMember { member_id, alarm }.encode_to_vec(), &[][..]))
        .collect();
    buckets.bucket(bucket::ALARM, alarms)?;
    buckets.bucket(bucket::AUTH, [(AUTH_ENABLED, [0])])?;
    for name in bucket::EMPTY {
        buckets.bucket(name, [("", ""); 0])?;
    }
    buckets.bucket(bucket::KEY, view.records().map(|record| record_row(record)))?;
    let leases: BTreeMap<[u8; 8], Vec<u8>> =
        view.leases().map(|(id, ttl)| (id.to_be_bytes(), LeaseRow { id, ttl }.encode_to_vec())).collect();
    buckets.bucket(bucket::LEASE, leases)?;
    let members: BTreeMap<String, String> = about.members.iter().map(member_row).collect();
    buckets.bucket(bucket::MEMBERS, members)?;
    buckets.bucket(bucket::META, meta_rows(view.compacted(), about))
}

fn record_row(record: &Record) -> (Vec<u8>, Vec<u8>) {
    let mut key = revision_key(record.kv.mod_revision, i64::from(record.sub)).to_vec();
    if record.tombstone {
        key.push(TOMBSTONE);
        let kv = KeyValue { key: record.kv.key.clone(), ..KeyValue::default() };
        return (key, kv.encode_to_vec());
    }
    (key, record.kv.encode_to_vec())
}

fn member_row(member: &Member) -> (String, String) {
    let mut json = serde_json::json!({
        "id": member.id,
        "peerURLs": member.peer_urls,
        "name": member.name,
        "clientURLs": member.client_urls,
    });
    if member.is_learner {
        json["isLearner"] = true.into();
    }
    (format!("{:x}", member.id), json.to_string())
}

fn meta_rows(compacted: i64, about: &About) -> BTreeMap<&'static str, Vec<u8>> {
    let mut rows = BTreeMap::from([
        (meta::APPLIED, about.applied.to_be_bytes().to_vec()),
        (meta::TERM, about.term.to_be_bytes().to_vec()),
    ]);
    if compacted > 0 {
        // What was scheduled is done: records go with the command that compacts.
        for name in [meta::SCHEDULED, meta::FINISHED] {
            rows.insert(name, revision_key(compacted, 0).to_vec());
        }
    }
    rows
}
