//! What clients and other members send, decoded and checked; what passes is applied, and leaves a state that holds together.
#![no_main]

use bytes::Bytes;
use coracle_etcd::proto::{
    DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, TxnRequest, WatchRequest,
};
use coracle_fuzz::{byte, piece};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use store::api::check;
use store::command::{Command, Op, decode_reply};
use store::machine::{Machine, Restore, is_read_only, is_serializable};
use store::raft::wire;

/// What a client may have done, as the API would propose it.
fn asked(machine: &Machine, how: u8, bytes: &[u8]) -> Option<Op> {
    Some(match how % 8 {
        0 => {
            let request = RangeRequest::decode(bytes).ok()?;
            check::range(&request).ok()?;
            if let Ok(answer) = machine.range(&request) {
                assert!(answer.kvs.len() as i64 <= answer.count.max(0));
            }
            return None;
        }
        1 => {
            let request = PutRequest::decode(bytes).ok()?;
            check::put(&request).ok()?;
            Op::Put(request)
        }
        2 => {
            let request = DeleteRangeRequest::decode(bytes).ok()?;
            check::delete(&request).ok()?;
            Op::DeleteRange(request)
        }
        3 | 4 => {
            let request = TxnRequest::decode(bytes).ok()?;
            check::txn(&request, 128).ok()?;
            let _ = is_serializable(&request);
            if is_read_only(&request) {
                let _ = machine.read_txn(&request);
                return None;
            }
            Op::Txn(request)
        }
        5 => Op::LeaseGrant(LeaseGrantRequest::decode(bytes).ok()?),
        // From the log or another member.
        6 => Command::decode(Bytes::copy_from_slice(bytes)).ok()?.op,
        _ => {
            let _ = WatchRequest::decode(bytes);
            let _ = decode_reply(bytes);
            let _ = wire::take_error(bytes);
            let _ = wire::AppendRequest::decode(bytes).map(wire::take_append);
            let _ = wire::VoteRequest::decode(bytes).map(|request| wire::take_vote_request(&request).is_ok());
            return None;
        }
    })
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let mut machine = Machine::new();
    while !data.is_empty() {
        let how = byte(&mut data);
        let bytes = piece(&mut data, 255);
        let Some(op) = asked(&machine, how, bytes) else { continue };
        let command = Command { proposed_at_millis: 0, op };
        assert_eq!(Command::decode(command.encode()).expect("decodes"), command);
        let before = machine.hash_kv(0);
        if machine.apply(&command).is_err() {
            assert_eq!(machine.hash_kv(0), before, "a refused command changed something: {command:?}");
        }
    }
    let mut again = Restore::new();
    for chunk in machine.view().chunks(64) {
        again.chunk(&chunk).expect("rows in order");
    }
    assert_eq!(again.finish().hash_kv(0), machine.hash_kv(0));
});
