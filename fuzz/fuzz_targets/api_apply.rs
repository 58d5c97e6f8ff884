//! Server-side apply: two managers apply, in turn, whatever stands between the NULs of the input; then somebody updates.
#![no_main]

use coracle_api::apply::{self, Writer};
use coracle_api::{decode, kinds};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let [place, force, rest @ ..] = data else { return };
    let all = kinds::builtin();
    let kind = &all[usize::from(*place) % all.len()];
    let mut live: Option<Value> = None;
    for (turn, text) in rest.split(|byte| *byte == 0).take(5).enumerate() {
        let Ok(config) = decode::document(text) else { continue };
        let manager = ["one", "two"][turn % 2];
        let writer = Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z" };
        if turn == 4 {
            if let Ok(new) = decode::json(text, kind) {
                apply::update(&mut new.object.clone(), live.as_ref(), kind, &writer);
            }
            break;
        }
        if apply::declared(&config.object, kind).is_err() {
            continue;
        }
        let merged = apply::apply(live.as_ref(), &config.object, kind, &writer, force >> turn & 1 == 1);
        let Some(object) = merged.ok().and_then(|merged| decode::canonical(merged, kind).ok()) else {
            continue;
        };
        live = Some(object.object);
    }
});
